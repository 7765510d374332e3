"""Accuracy of fine-tuned models, those of one (model, method), on every test.

Predictions are kept one file a (checkpoint, test), named by a digest of all they depend on, so
that a new dataset costs its own row and column only, and a failing job loses nothing.
"""

from pathlib import Path

from safetensors.torch import load_file

from foretune.classify import predict
from foretune.datasets import read_manifest, read_split, title_of
from foretune.embed import DEVICE, load_images
from foretune.evaluate import (
    captions_of,
    keep_predictions,
    predictions_path,
    read_best,
    score,
    write_scores,
)
from foretune.files import ForetuneError
from foretune.models import load_model


def evaluate_model(
    selections: list[Path], model_spec: dict, tests: list[Path], text_caches: list[Path],
    predictions: Path, code: str, output: Path, classes: Path, log=print,
) -> None:  # fmt: skip
    """Every selected checkpoint of one base model on every test.

    predictions: the folder of files by digest; code: digest of the code that evaluates. The model
    is loaded, and a test's images are prepared, only where predictions are missing. Images of one
    test at a time are in memory.
    """
    runs, tuned, scores = [read_best(path) for path in selections], None, []
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
        paths = [predictions_path(predictions, run["sha256"], *made_from) for run in runs]
        missing = {path: run["delta"] for path, run in zip(paths, runs, strict=True)
                   if not path.exists()}  # fmt: skip
        if missing:
            tuned = tuned or Tuned(model_spec)
            predict_test(tuned, missing, test, captions, log)
        for path, run in zip(paths, runs, strict=True):
            key = run["model"], run["method"], run["dataset"], 1.0
            scores.append(score(*key, manifest, path))
            accuracy = scores[-1][0]["accuracy"]
            log(f"tuned on {run['dataset']}, tested on {title_of(manifest)}: {accuracy:.3f}")
    write_scores(scores, output, classes)


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
        keep_predictions(path, rows["id"], rows["label"], predicted, title)
