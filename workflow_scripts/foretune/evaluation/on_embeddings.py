"""Evaluation of zero-shot models, probes and CLIP-Adapters on cached embeddings.

Nothing in this module needs torch.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file as load_arrays

from foretune.data.prepared import Manifest, get_dataset_title
from foretune.encoders.cache import Embeddings, normalize_rows
from foretune.encoders.captions import get_captions
from foretune.evaluation.calibration import fit_temperature
from foretune.evaluation.scores import (
    EvaluationOutputs,
    EvaluationTest,
    get_predictions_path,
    read_selections,
    score_predictions,
    write_predictions,
    write_scores,
)

# Turns a model's embeddings of images and captions into similarities (N, C) and their scale.
Predict = Callable[..., tuple[np.ndarray, float]]


def evaluate_zero_shot(model: str, tests: list[EvaluationTest], outputs: EvaluationOutputs) -> None:
    """Evaluate the base model on every test: the class with the nearest caption is predicted."""
    scores, keep = [], CachedPredictions(outputs.predictions, tests)
    for test in tests:
        manifest, images, texts = read_cached_test(test)
        path = keep("zero_shot", manifest, images, texts, predict_zero_shot, manifest["name"])
        scores.append(score_predictions(model, "zero_shot", None, None, manifest, path))
    write_scores(scores, outputs)


def evaluate_probe(
    selections: list[Path], tests: list[EvaluationTest], outputs: EvaluationOutputs
) -> None:
    """Evaluate each selected linear probe on its own task's tests, shifted ones included.

    The tests of a task whose trials all diverged have no probe and are left out.
    """
    runs = {run["dataset"]: run for run in read_selections(selections)}
    scores, keep = [], CachedPredictions(outputs.predictions, tests)
    for test in tests:
        manifest, images = test.read_manifest(), test.read_images()
        if (run := runs.get(manifest["name"])) is None:
            continue
        layer = load_arrays(run["trained_weights"])
        predict = functools.partial(predict_by_layer, layer=layer)
        path = keep(run["sha256"], manifest, images, None, predict, run["dataset"])
        scores.append(
            score_predictions(run["model"], run["method"], run["dataset"], 1.0, manifest, path)
        )
    write_scores(scores, outputs)


def evaluate_adapter(
    selections: list[Path],
    tests: list[EvaluationTest],
    outputs: EvaluationOutputs,
    wise_ft: Sequence[float] = (),
) -> None:
    """Evaluate each selected CLIP-Adapter, or probe that starts from captions, on every test.

    An adapter adapts any images and captions. A probe predicts its own task's tests, and leaves
    those of other tasks to the zero-shot model, which it does not change.

    Args:
        wise_ft: coefficients c in [0, 1) at which a probe's layer is evaluated too, as (1 - c)
            zero-shot classifier + c layer (WiSE-FT; Wortsman et al. 2022, equation 1).
    """
    runs = read_selections(selections)
    trained, scores = [load_arrays(run["trained_weights"]) for run in runs], []
    keep = CachedPredictions(outputs.predictions, tests)
    for test in tests:
        manifest, images, texts = read_cached_test(test)
        for run, weights in zip(runs, trained, strict=True):
            for coefficient in (*wise_ft, 1.0):
                predictor, predict, own = run["sha256"], predict_zero_shot, run["dataset"]
                if "weight" not in weights:
                    predict = functools.partial(predict_by_adapter, adapter=weights)
                elif manifest["name"] == own and coefficient > 0:
                    predictor = f"{predictor} {coefficient}"
                    predict = functools.partial(
                        predict_by_head, layer=weights, coefficient=coefficient
                    )
                else:
                    predictor, own = "zero_shot", manifest["name"]
                path = keep(predictor, manifest, images, texts, predict, own)
                key = run["model"], run["method"], run["dataset"], coefficient
                scores.append(score_predictions(*key, manifest, path))
    scores.sort(key=lambda each: (each.outcome["trained_on"], each.outcome["wise_ft"]))
    write_scores(scores, outputs)


def predict_zero_shot(images: Embeddings, texts: Embeddings) -> tuple[np.ndarray, float]:
    """Return the cosines (N, C) of images and captions, and the model's logit scale."""
    cosines = normalize_rows(images.vectors) @ normalize_rows(texts.vectors).T
    return cosines, texts.metadata["logit_scale"]


def predict_by_layer(
    images: Embeddings, texts: Embeddings | None, layer: dict[str, np.ndarray]
) -> tuple[np.ndarray, float]:
    """Return the logits (N, C) of raw image vectors by a layer (see `apply_head`), and 1."""
    return images.vectors @ layer["weight"] + layer["bias"], 1.0


def predict_by_head(
    images: Embeddings, texts: Embeddings, layer: dict[str, np.ndarray], coefficient: float
) -> tuple[np.ndarray, float]:
    """Return the logits (N, C) of (1 - coefficient) captions + coefficient layer, and 1."""
    logits = apply_head(images.vectors, layer)
    if coefficient < 1:
        cosines, scale = predict_zero_shot(images, texts)
        logits = (1 - coefficient) * (scale * cosines) + coefficient * logits
    return logits, 1.0


def predict_by_adapter(
    images: Embeddings, texts: Embeddings, adapter: dict[str, np.ndarray]
) -> tuple[np.ndarray, float]:
    """Return the cosines (N, C) of adapted images and captions, and the model's logit scale."""
    adapted = apply_adapter(images.vectors, adapter, "image")
    return adapted @ apply_adapter(texts.vectors, adapter, "text").T, texts.metadata["logit_scale"]


def apply_head(vectors: np.ndarray, layer: dict[str, np.ndarray]) -> np.ndarray:
    """Return the logits (N, C) of raw vectors (N, d) by a layer on vectors of unit length.

    `layer` holds `weight` (d, C) and `bias` (C,).
    """
    return normalize_rows(vectors) @ layer["weight"] + layer["bias"]


def apply_adapter(vectors: np.ndarray, adapter: dict[str, np.ndarray], side: str) -> np.ndarray:
    """Return raw vectors (N, d) after the adapter of one side, "image" or "text", of unit length.

    `adapter` holds the trained weights: `{side}.down` (h, d), `{side}.up` (d, h), and `ratio`, the
    share of the adapted vectors in the result.
    """
    hidden = np.maximum(vectors @ adapter[f"{side}.down"].T, 0)
    ratio = float(adapter["ratio"])
    adapted = ratio * np.maximum(hidden @ adapter[f"{side}.up"].T, 0) + (1 - ratio) * vectors
    # An adapter with ratio 1 may give a zero vector.
    return adapted / np.maximum(np.linalg.norm(adapted, axis=1, keepdims=True), 1e-12)


def read_cached_test(test: EvaluationTest) -> tuple[Manifest, Embeddings, Embeddings]:
    """Return a test's manifest and one model's embeddings of its images and its captions."""
    images = test.read_images()
    texts = test.read_captions(weights=images.metadata["weights"])
    return test.read_manifest(), images, texts


class CachedPredictions:
    """Writes predictions from embeddings to files that are named by what they depend on.

    If the tests have embeddings of validation images, a temperature is fitted for each predictor.
    """

    def __init__(self, folder: Path, tests: list[EvaluationTest]):
        self.folder = folder
        self.validation = {
            test.read_manifest()["name"]: test for test in tests if test.validation is not None
        }
        self.temperatures: dict[tuple[str, str], float] = {}

    def __call__(
        self, predictor: str, manifest: Manifest, images: Embeddings, texts: Embeddings | None,
        predict: Predict, fitted_on: str,
    ) -> Path:  # fmt: skip
        """Write the predictions for a test, and return their file.

        Args:
            predictor: digest of the trained weights, or "zero_shot".
            texts: None for predictors that use no captions.
            fitted_on: dataset whose validation images give the temperature.
        """
        captions = None if texts is None else get_captions(texts)
        path = get_predictions_path(
            self.folder, predictor, images.metadata["weights"], images.metadata["preprocessing"],
            manifest["digest"], captions, "from embeddings", scaled=bool(self.validation),
        )  # fmt: skip
        temperature, key = None, (predictor, fitted_on)
        if self.validation and (temperature := self.temperatures.get(key)) is None:
            own = self.validation[fitted_on]
            seen = own.read_validation()
            words = None if texts is None else own.read_captions(weights=seen.metadata["weights"])
            temperature = fit_temperature(*predict(seen, words), seen.columns["label"])
            self.temperatures[key] = temperature
        write_predictions(
            path, images.columns["id"], images.columns["label"], *predict(images, texts),
            get_dataset_title(manifest), temperature,
        )  # fmt: skip
        return path
