"""Accuracy of fine-tuned models, those of one (model, method), on every test.

Predictions are kept one file a (checkpoint, test), named by a digest of all they depend on, so
that a new dataset costs its own row and column only, and a failing job loses nothing.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import load_file

from foretune.classify import predict
from foretune.datasets import read_manifest, read_split, title_of
from foretune.embed import DEVICE, load_images
from foretune.evaluate import captions_of, outcome, read_best, write_outcomes
from foretune.files import ForetuneError, digest_json
from foretune.models import load_model
from foretune.tables import write_parquet


def evaluate_model(
    selections: list[Path], model_spec: dict, tests: list[Path], text_caches: list[Path],
    predictions: Path, code: str, output: Path, log=print,
) -> None:  # fmt: skip
    """Every selected checkpoint of one base model on every test.

    predictions: the folder of files by digest; code: digest of the code that evaluates. The model
    is loaded, and a test's images are prepared, only where predictions are missing. Images of one
    test at a time are in memory.
    """
    runs, tuned, rows = [read_best(path) for path in selections], None, []
    for test, text_cache in zip(tests, text_caches, strict=True):
        manifest = read_manifest(test)
        texts = captions_of(text_cache, manifest)
        captions = list(texts.columns["caption"])
        made_from = [
            texts.metadata["weights"],
            texts.metadata["preprocessing"],
            manifest["digest"],
            captions,
            code,
        ]
        paths = [
            predictions / f"{digest_json([run['sha256'], *made_from])}.parquet" for run in runs
        ]
        missing = {path: run["delta"] for path, run in zip(paths, runs, strict=True)
                   if not path.exists()}  # fmt: skip
        if missing:
            tuned = tuned or Tuned(model_spec)
            predict_test(tuned, missing, test, captions, log)
        for path, run in zip(paths, runs, strict=True):
            table = pq.read_table(path)
            correct = table["label"].to_numpy() == table["predicted"].to_numpy()
            rows.append(outcome(run["model"], run["method"], run["dataset"], manifest, correct))
            log(
                f"tuned on {run['dataset']}, tested on {title_of(manifest)}: {np.mean(correct):.3f}"
            )
    write_outcomes(rows, output)


class Tuned:
    """A base model that takes the trained weights of one checkpoint after another."""

    def __init__(self, model_spec: dict):
        self.model, self.preprocess, self.tokenizer = load_model(model_spec, DEVICE)
        self.base = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def load(self, delta: str) -> None:
        """Put trained weights in their places, and the base model's in all others."""
        trained = load_file(delta)
        unknown = sorted(trained.keys() - self.base.keys())
        if unknown:
            raise ForetuneError(f"{delta}: weights that the model lacks: {unknown}")
        self.model.load_state_dict({**self.base, **trained})


def predict_test(
    tuned: Tuned, checkpoints: dict[Path, str], test: Path, captions: list[str], log
) -> None:
    """Write (id, label, predicted) of a test's images to each path, by the checkpoint it has."""
    rows, title = read_split(test, "test"), title_of(read_manifest(test))
    images = load_images(rows, tuned.preprocess, f"{title}, test", log)
    for path, delta in checkpoints.items():
        tuned.load(delta)
        predicted = predict(tuned.model, tuned.preprocess, tuned.tokenizer, images, captions)
        table = pa.table({
            "id": rows["id"], "label": rows["label"],
            "predicted": pa.array(predicted.numpy().astype(np.int32)),
        })  # fmt: skip
        write_parquet(table, path, {"kind": "predictions", "test": title})
