"""Measure time and memory of one model at its real size, with random weights.

    python tests/support/real_size.py architecture tag folder [method ...]

The weights are written to where the hub's library would put them, so that the tag finds them. Then
the model embeds, is trained by one step on four images with each method (all by default), and is
evaluated. The last line printed is JSON.
"""

import gc
import json
import os
import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMIT = "c" * 40
METHODS = {
    "full": {}, "bitfit": {}, "attention": {},
    "lora": {"rank": 4, "alpha": 8, "projections": "qv"},
    "clip_lora": {"rank": 2, "alpha": 1.4, "projections": "qkv", "dropout": 0.25},
    "flyp": {}, "lp_ft": {"towers": "image", "probe": {"learning_rate": [1.0], "epochs": 1}},
    "clip_adapter": {"reduction": 4, "ratio": 0.2}, "linear_probe": {}, "text_probe": {},
    "lp_plus_plus": {},
}  # fmt: skip


def cache(repository: str) -> Path:
    """Make and return the folder of a repository's files in the hub's cache."""
    folder = Path(os.environ["HF_HOME"], "hub", "models--" + repository.replace("/", "--"))
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs/main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT).mkdir(parents=True, exist_ok=True)
    return folder / "snapshots" / COMMIT


def make_tokenizer(folder: Path) -> None:
    """Write a tokenizer of SigLIP's kind (sentence pieces), which this machine need not have."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -2.0)]
    pieces += [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = {"tokenizer_class": "T5Tokenizer", "model_max_length": 64, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def make_config_of_xlm_roberta(folder: Path) -> None:
    """Write the config of xlm-roberta-base, which the hub's repository has."""
    from transformers import XLMRobertaConfig

    XLMRobertaConfig(
        vocab_size=250002, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5
    ).save_pretrained(folder)


def make_weights(architecture: str, tag: str) -> int:
    """Write random weights in half precision as the file of the tag; return their number."""
    import torch
    from safetensors.torch import save_file

    from foretune.encoders.imports import open_clip, restore_transformers

    repository = open_clip.get_pretrained_cfg(architecture, tag)["hf_hub"].strip("/")
    config = open_clip.get_model_config(architecture)["text_cfg"]
    if config.get("hf_model_name") == "xlm-roberta-base":
        restore_transformers()
        make_config_of_xlm_roberta(cache("xlm-roberta-base"))
    torch.manual_seed(0)
    model = open_clip.create_model(architecture, pretrained_text=False)
    state = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, cache(repository) / "open_clip_model.safetensors")
    if "hf_tokenizer_name" in config:
        make_tokenizer(cache(config["hf_tokenizer_name"]))
    return sum(parameter.numel() for parameter in model.parameters())


def make_dataset(folder: Path, output: Path) -> None:
    """Prepare a dataset of seven pictures of noise, four of them for training."""
    import numpy as np
    from PIL import Image

    from foretune.data.prepare import RowStream, write_dataset
    from foretune.data.prepared import SPLITS
    from foretune.data.sources.local import read_folder_source

    rng = np.random.default_rng(0)
    for i, name in enumerate(["crow"] * 4 + ["jay"] * 3):
        path = folder / name / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (240, 300, 3), dtype=np.uint8)).save(path)
    source = read_folder_source(folder)
    splits = np.array(["train", "train", "val", "test", "train", "train", "test"])
    stream = RowStream(source.rows["all"], splits, source.classes, in_test_pool=True)
    names = {"classes": source.classes, "source_classes": source.classes}
    facts = {"name": "birds", "split": "test", "caption": "a {}", "licence": "", "source": ""}
    write_dataset(facts | names, [stream], SPLITS, output)


def run(architecture: str, tag: str, folder: Path, methods: list[str]) -> dict:
    """Run all steps; return the seconds of each, the peak memory and what was written."""
    from foretune.core.config import CACHED_METHODS
    from foretune.core.grid import expand_grid
    from foretune.encoders.encode import embed_captions, embed_images
    from foretune.evaluation.finetuned import BaseModel, FineTunedOutputs, evaluate_model
    from foretune.evaluation.on_embeddings import (
        evaluate_adapter,
        evaluate_probe,
        evaluate_zero_shot,
    )
    from foretune.evaluation.scores import EvaluationOutputs, EvaluationTest
    from foretune.training.finetune import finetune
    from foretune.training.on_embeddings import fit_on_embeddings
    from foretune.training.trials import JobSpec

    seconds, started = {}, time.monotonic()

    def lap(name: str) -> None:
        nonlocal started
        now = time.monotonic()
        seconds[name], started = round(now - started, 1), now

    parameters = make_weights(architecture, tag)
    lap("weights")
    dataset, embeddings, prepared = (folder / name for name in ("dataset", "embeddings", "kept"))
    make_dataset(folder / "birds", dataset)
    spec = {"architecture": architecture, "pretrained": tag}
    embed_images(spec, dataset, embeddings / "birds", prepared)
    text = embeddings / "birds/text.parquet"
    embed_captions(spec, dataset, "a photo of a {}", text)
    lap("embed")
    predictions, outcomes, tuned = folder / "predictions", {}, []
    tests = [EvaluationTest(dataset, embeddings / "birds/test.parquet", text)]
    tables = [folder / f"{name}.parquet" for name in ("rows", "classes", "confusions")]
    outputs = EvaluationOutputs(predictions, *tables)
    evaluate_zero_shot("it", tests, outputs)
    for method in methods:
        recipe = {
            "learning_rate": [1e-5], "weight_decay": [0.0], "optimizer": "sgd", "momentum": 0.9,
            "epochs": 1, "batch_size": 4, "schedule": "constant", "warmup_epochs": 0,
            "label_smoothing": 0, "towers": "both", "precision": "auto", "compile": False,
            "augmentation": {"crop": 1, "flip": False}, "search": {"kind": "grid"}, "parts": 1,
        } | METHODS[method]  # fmt: skip
        grid = {name: [recipe.pop(name)] for name in ("rank", "reduction") if name in recipe}
        trials = expand_grid(recipe | grid)
        settings = {k: v for k, v in recipe.items() if not isinstance(v, list) and k != "parts"}
        run_of = {"model": "it", "method": method, "dataset": "birds"}
        output = folder / "trials" / method
        best = [output / "best.json"]
        job = JobSpec(run_of, settings, trials, 0, dataset, output)
        if method in CACHED_METHODS:
            fit_on_embeddings(job, embeddings / "birds")
        else:
            finetune(job, spec, text, prepared)
        gc.collect()  # in a study each of these is a process
        lap(method)
        if method == "linear_probe":
            evaluate_probe(best, tests, outputs)
        elif method in CACHED_METHODS:
            evaluate_adapter(best, tests, outputs)
        else:
            tuned += best
        outcomes[method] = json.loads(best[0].read_text())["sha256"]
    if architecture != "ViT-B-32-quickgelu":
        tuned = tuned[:1]  # in the paper the other models are tuned in full only
    outputs = FineTunedOutputs(predictions, *tables, folder / "drift.parquet")
    evaluate_model(tuned, BaseModel(spec, embeddings, prepared), tests, outputs, code="")
    lap("evaluate")
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "parameters": parameters, "seconds": seconds,
        "cpu_seconds": round(used.ru_utime + used.ru_stime),
        "peak_gib": round(used.ru_maxrss / 2**20, 2),
        "predictions": len(list(predictions.glob("*.parquet"))), "trained_weights": outcomes,
    }  # fmt: skip


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "workflow_scripts"))
    architecture, tag, folder, *methods = sys.argv[1:]
    os.environ["HF_HOME"] = str(Path(folder, "home"))
    print(json.dumps(run(architecture, tag, Path(folder), methods or list(METHODS))))
