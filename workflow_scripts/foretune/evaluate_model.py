"""Accuracy of fine-tuned models, those of one (model, method), on every test.

Predictions are kept one file a (checkpoint, coefficient, test), named by a digest of all they
depend on, so that a new dataset costs its own row and column only, and a failing job loses
nothing.
"""

from pathlib import Path

import torch

from foretune.classify import predict
from foretune.datasets import read_manifest, read_split, title_of
from foretune.embed import DEVICE, encode_captions, encode_images
from foretune.evaluate import (
    captions_of,
    keep_predictions,
    predictions_path,
    read_best,
    score,
    write_scores,
)
from foretune.images import prepare_images
from foretune.methods import apply_delta
from foretune.models import load_model


def evaluate_model(
    selections: list[Path], model_spec: dict, wise_ft: list[float], tests: list[Path],
    text_caches: list[Path], prepared: Path, predictions: Path, code: str, output: Path,
    classes: Path, log=print,
) -> None:  # fmt: skip
    """Every selected checkpoint of one base model on every test, with that test's captions.

    wise_ft: coefficients c in [0, 1) of further evaluations at (1 - c) zero-shot + c tuned
    weights (WiSE-FT, Wortsman et al. 2022, equation 1). prepared: where prepared images are
    kept (see images.py). predictions: the folder of files by digest; code: digest of the code
    that evaluates. The model is loaded, and weights are set, only where predictions are missing.
    """
    tuned, scores = None, []
    described = [describe_test(*pair) for pair in zip(tests, text_caches, strict=True)]
    for run in map(read_best, selections):
        for coefficient in (*wise_ft, 1.0):
            paths = {
                test: predictions_path(predictions, run["sha256"], coefficient, made_from, code)
                for test, (_, _, made_from) in zip(tests, described, strict=True)
            }
            if not all(path.exists() for path in paths.values()):
                tuned = tuned or Tuned(model_spec, prepared, log)
                tuned.load(run["delta"], coefficient)
            for (test, path), (manifest, captions, _) in zip(paths.items(), described, strict=True):
                if not path.exists():
                    rows = read_split(test, "test", ["id", "label"])
                    predicted = tuned.predict(test, captions)
                    keep_predictions(path, rows["id"], rows["label"], predicted, title_of(manifest))
                key = run["model"], run["method"], run["dataset"], coefficient
                scores.append(score(*key, manifest, path))
                part = f" at {coefficient}" if wise_ft else ""
                log(
                    f"tuned on {run['dataset']}{part}, tested on {title_of(manifest)}: "
                    f"{scores[-1][0]['accuracy']:.3f}"
                )
    write_scores(scores, output, classes)


def describe_test(test: Path, text_cache: Path) -> tuple[dict, list[str], list]:
    """A test's manifest, its captions, and what predictions depend on beside the weights."""
    manifest = read_manifest(test)
    texts = captions_of(text_cache, manifest)
    captions = list(texts.columns["caption"])
    base = [texts.metadata["weights"], texts.metadata["preprocessing"]]
    return manifest, captions, [*base, manifest["digest"], captions]


class Tuned:
    """A base model that takes the trained weights of one checkpoint after another."""

    def __init__(self, model_spec: dict, prepared: Path, log=print):
        self.model, self.preprocess, self.tokenizer = load_model(model_spec, DEVICE)
        self.base = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.prepared, self.log = prepared, log

    @torch.no_grad()
    def load(self, delta: str, coefficient: float) -> None:
        """Weights at (1 - coefficient) base + coefficient tuned; 1 is the tuned ones exactly."""
        self.model.load_state_dict(self.base)
        if coefficient == 0:
            return
        apply_delta(self.model, delta)
        if coefficient < 1:
            for name, tensor in self.model.state_dict().items():
                if tensor.is_floating_point():
                    tensor.copy_(torch.lerp(self.base[name], tensor, coefficient))

    def predict(self, test: Path, captions: list[str]) -> torch.Tensor:
        images = prepare_images(test, "test", self.preprocess, self.prepared, self.log)
        vectors = encode_images(self.model, self.preprocess, images)
        return predict(vectors, encode_captions(self.model, self.tokenizer, captions))
