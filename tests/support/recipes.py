"""The settings of a short fine-tuning, for tests to change."""

RECIPE = {
    "optimizer": "sgd", "momentum": 0.9, "epochs": 2, "batch_size": 32, "schedule": "constant",
    "warmup_epochs": 0, "clip_norm": 1.0, "label_smoothing": 0, "towers": "both",
    "precision": "auto", "compile": False, "augmentation": {"crop": 1, "flip": False},
    "search": {"kind": "grid"},
}  # fmt: skip
