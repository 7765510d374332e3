"""Fine-tuned models as folders that open_clip loads by itself."""

import json

import open_clip
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

import forked
from checkout import CLIP_MINI, ROOT
from foretune.core.errors import ForetuneError
from foretune.encoders.loading import load_model
from foretune.evaluation.export import export_model
from foretune.training.methods import describe_trained_weights, make_trainable
from real_size import make_tokenizer

SETTINGS = {"towers": "both", "rank": 4, "alpha": 8, "projections": "qv"}
VISION = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
PREPROCESS = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "interpolation": "bilinear",
              "resize_mode": "squash"}  # fmt: skip


@pytest.fixture(params=["clip", "siglip"])
def base(request, tmp_path):
    """The entry of a small model of open_clip's own parts, with random weights."""
    folder = tmp_path / "base"
    folder.mkdir()
    text = dict(TEXT)
    if request.param == "siglip":
        make_tokenizer(folder)
        text |= {"hf_tokenizer_name": "me/mine", "vocab_size": 30, "no_causal_mask": True,
                 "pool_type": "last", "proj_bias": True}  # fmt: skip
    config = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": text}
    if request.param == "siglip":
        config |= {"custom_text": True, "init_logit_bias": -10}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": PREPROCESS})
    )
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return {"folder": str(folder)}


def train(spec, path, method="lora"):
    """Write random trained weights of a method to a file, and return a model that has them."""
    model, preprocess, tokenizer = load_model(spec)
    trainable = make_trainable(model, method, SETTINGS)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trainable.parameters.values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    weights = {name: p.detach().contiguous().clone() for name, p in trainable.parameters.items()}
    save_file(weights, path, describe_trained_weights(method, SETTINGS))
    trainable.merge()
    return model, preprocess, tokenizer


@pytest.mark.parametrize("method", ["lora", "full"])
def test_open_clip_alone_gives_the_same_logits(base, method, tmp_path):
    model, preprocess, tokenizer = train(base, tmp_path / "trained.safetensors", method)
    output = tmp_path / "exported"
    output.mkdir()
    export_model(base, tmp_path / "trained.safetensors", 1, output)
    image, captions = Image.effect_noise((40, 30), 90).convert("RGB"), ["a cat", "two dogs"]
    with torch.no_grad():
        pixels = preprocess.normalize(preprocess(image)[None])
        expected = [model.encode_image(pixels), model.encode_text(tokenizer(captions))]
        loaded, _, transform = open_clip.create_model_and_transforms(f"local-dir:{output}")
        tokens = open_clip.get_tokenizer(f"local-dir:{output}")(captions)
        found = [loaded.eval().encode_image(transform(image)[None]), loaded.encode_text(tokens)]
        assert open_clip.create_model_from_pretrained(f"local-dir:{output}")
        before = load_model(base).model.encode_image(pixels)
    for one, other in zip(expected, found, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert not torch.allclose(before, found[0], atol=1e-2)


def test_a_share_of_the_trained_weights_is_exported(base, tmp_path):
    model, *_ = train(base, tmp_path / "trained.safetensors", "full")
    export_model(base, tmp_path / "trained.safetensors", 0.25, tmp_path)
    exported = open_clip.create_model(f"local-dir:{tmp_path}").state_dict()
    name = "logit_scale"
    before = load_model(base).model.state_dict()[name]
    assert exported[name] == pytest.approx((0.75 * before + 0.25 * model.state_dict()[name]).item())


def test_a_model_that_open_clip_cannot_build_is_refused(tmp_path):
    with pytest.raises(
        ForetuneError, match=r"has parts that open_clip cannot build \(merges, stem"
    ):
        export_model(CLIP_MINI, tmp_path / "none", 1, tmp_path)


def run_script(folder, **names):
    options = {"model": "mine", "method": "lora", "dataset": "digits", "output": "out", **names}
    arguments = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
    script = ROOT / "workflow_scripts/export_model.py"
    return forked.run(script, "--study", "study.yaml", *arguments, cwd=folder)


def test_export_writes_a_model_card_and_explains_what_is_missing(base, tmp_path):
    study = {
        "title": "birds: a study", "models": {"mine": base},
        "datasets": {"digits": {"folder": "digits"}},
        "methods": {
            "lora": {"learning_rate": [1e-3]}, "linear_probe": {"learning_rate": [1]},
            "lp_ft": {"learning_rate": [1e-3]},
        },
    }  # fmt: skip
    (tmp_path / "digits").mkdir()
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    for names, message in (
        ({"model": "min"}, "error: MODEL=min: is not in the study's models; did you mean mine?"),
        ({"method": "linear_probe"}, "METHOD=linear_probe: trains a head on embeddings"),
        ({"method": "lp_ft"}, "METHOD=lp_ft: predicts by a layer that a dual encoder has no place"),
        ({}, "results/trials/mine/lora/digits/0/best.json: no such file; run the study first"),
    ):
        done = run_script(tmp_path, **names)
        assert message in done.stderr and len(done.stderr.splitlines()) == 1
    trial = tmp_path / "results/trials/mine/lora/digits/0"
    trial.mkdir(parents=True)
    train(base, trial / "trained_weights.safetensors")
    best = {"model": "mine", "method": "lora", "dataset": "digits", "trial": 0, "epoch": 3,
            "learning_rate": 1e-3, "weight_decay": 1e-4, "rank": 4, "val_accuracy": 0.875,
            "trained_weights": f"{trial}/trained_weights.safetensors", "sha256": "0"}  # fmt: skip
    (trial / "best.json").write_text(json.dumps(best))
    manifest = {"name": "digits", "split": "test", "classes": ["0", "1"], "source_classes": [],
                "caption": "the digit {}.", "licence": "CC0", "source": "a friend", "digest": "1",
                "test_digest": "2", "splits": {"train": {"rows": 90}}}  # fmt: skip
    (tmp_path / "results/datasets/digits").mkdir(parents=True)
    (tmp_path / "results/datasets/digits/dataset.json").write_text(json.dumps(manifest))
    evaluations = tmp_path / "results/evaluations/mine"
    evaluations.mkdir(parents=True)
    for method, accuracies, c in (("zero_shot", (0.5, 0.75), None), ("lora", (0.9, 0.625), 1.0)):
        pd.DataFrame({
            "model": "mine", "method": method, "wise_ft": c,
            "trained_on": None if c is None else "digits", "evaluated_on": ["digits", "birds"],
            "split": "test", "n": 40, "accuracy": accuracies, "ece": [0.1, 0.25],
            "nll": [0.5, 1.5], "temperature": c, "ece_scaled": 0.05, "nll_scaled": 0.45,
        }).to_parquet(evaluations / f"{method}.parquet")  # fmt: skip
    done = run_script(tmp_path)
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "out/README.md").read_text()
    _, facts, text = card.split("---\n", 2)
    assert yaml.safe_load(facts)["library_name"] == "open_clip"
    for line in ("# mine fine-tuned on digits", "90 training images of 2 classes. Licence: CC0",
                 "(learning_rate 0.001, weight_decay 0.0001, rank 4), 3 epochs", "birds: a study",
                 "| digits | 40 | 50.0% → 90.0% | 10.0% → 10.0% | 0.500 → 0.500 |\n"
                 "| birds | 40 | 75.0% → 62.5% | 25.0% → 25.0% | 1.50 → 1.50 |\n\n",
                 "Divided by 1.00, the temperature that fits its validation images best, its",
                 "a calibration error of 5.0% and a negative log-likelihood of 0.450",
                 'create_model_and_transforms("local-dir:out")', "`the digit {}.`"):  # fmt: skip
        assert line in text, line
    assert "out: exists already; name a new folder" in run_script(tmp_path).stderr
    assert "It was not tested." in (
        run_script(tmp_path, output="half", wise_ft=0.5)
        and (tmp_path / "half/README.md").read_text()
    )
