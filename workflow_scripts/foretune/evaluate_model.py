"""Accuracy of a fine-tuned model on the test split of every dataset.

Predictions are kept one file a (checkpoint, dataset), named by a digest of all they depend
on, so that a new dataset costs its own column only, and a failing job loses nothing.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import load_file

from foretune.classify import predict
from foretune.datasets import read_manifest, read_split
from foretune.embed import DEVICE, load_images
from foretune.embeddings import read_embeddings
from foretune.evaluate import outcome, read_best, write_outcomes
from foretune.files import ForetuneError, digest_json
from foretune.models import load_model
from foretune.tables import write_parquet


def evaluate_model(
    best: Path, model_spec: dict, datasets: list[Path], text_caches: list[Path],
    predictions: Path, code: str, output: Path, log=print,
) -> None:  # fmt: skip
    """A selected fine-tuned model on the test split of every dataset.

    predictions: the folder of files by digest; code: digest of the code that evaluates.
    """
    run, model = read_best(best), None
    rows = []
    for dataset, text_cache in zip(datasets, text_caches, strict=True):
        manifest = read_manifest(dataset)
        texts = read_embeddings(text_cache, dataset=manifest["digest"])
        captions = list(texts.columns["caption"])
        key = digest_json(
            [
                run["sha256"],
                texts.metadata["weights"],
                texts.metadata["preprocessing"],
                manifest["digest"],
                captions,
                code,
            ]
        )
        path = predictions / f"{key}.parquet"
        if not path.exists():
            if model is None:
                model = load_tuned(model_spec, run["delta"])
            predict_split(model, dataset, captions, path, log)
        table = pq.read_table(path)
        correct = table["label"].to_numpy() == table["predicted"].to_numpy()
        rows.append(outcome(run["model"], run["method"], run["dataset"], manifest, correct))
        log(f"tuned on {run['dataset']}, tested on {manifest['name']}: {np.mean(correct):.3f}")
    write_outcomes(rows, output)


def load_tuned(model_spec: dict, delta: str):
    """The base model with the trained weights put in their places."""
    model, preprocess, tokenizer = load_model(model_spec, DEVICE)
    fitted = model.load_state_dict(load_file(delta), strict=False)
    if fitted.unexpected_keys:
        raise ForetuneError(f"{delta}: weights that {model_spec} lacks: {fitted.unexpected_keys}")
    return model, preprocess, tokenizer


def predict_split(tuned, dataset: Path, captions: list[str], path: Path, log) -> None:
    """Write (id, label, predicted) of a dataset's test split."""
    model, preprocess, tokenizer = tuned
    rows = read_split(dataset, "test")
    images = load_images(rows, preprocess, f"{dataset.name}, test", log)
    predicted = predict(model, preprocess, tokenizer, images, captions)
    table = pa.table({
        "id": rows["id"], "label": rows["label"],
        "predicted": pa.array(predicted.numpy().astype(np.int32)),
    })  # fmt: skip
    write_parquet(table, path, {"kind": "predictions", "dataset": dataset.name})
