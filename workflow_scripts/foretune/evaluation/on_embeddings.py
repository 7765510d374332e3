"""Evaluation of zero-shot models, probes and CLIP-Adapters on cached embeddings.

Nothing in this module needs torch.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file as load_arrays

from foretune.data.prepared import Manifest, get_dataset_title
from foretune.encoders.cache import Embeddings, normalize_rows
from foretune.encoders.captions import get_captions
from foretune.evaluation.scores import (
    EvaluationOutputs,
    EvaluationTest,
    get_predictions_path,
    read_selections,
    score_predictions,
    write_predictions,
    write_scores,
)


def evaluate_zero_shot(model: str, tests: list[EvaluationTest], outputs: EvaluationOutputs) -> None:
    """Evaluate the base model on every test: the class with the nearest caption is predicted."""
    scores = []
    for test in tests:
        manifest, images, texts = read_cached_test(test)
        path = write_cached_predictions(
            outputs.predictions, "zero_shot", manifest, images, texts, compare(images, texts)
        )
        scores.append(score_predictions(model, "zero_shot", None, None, manifest, path))
    write_scores(scores, outputs)


def evaluate_probe(
    selections: list[Path], tests: list[EvaluationTest], outputs: EvaluationOutputs
) -> None:
    """Evaluate each selected linear probe on its own task's tests, shifted ones included.

    The tests of a task whose trials all diverged have no probe and are left out.
    """
    runs = {run["dataset"]: run for run in read_selections(selections)}
    scores = []
    for test in tests:
        manifest, images = test.read_manifest(), test.read_images()
        if (run := runs.get(manifest["name"])) is None:
            continue
        layer = load_arrays(run["trained_weights"])
        logits = images.vectors @ layer["weight"] + layer["bias"]
        path = write_cached_predictions(
            outputs.predictions, run["sha256"], manifest, images, None, logits
        )
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
    for test in tests:
        manifest, images, texts = read_cached_test(test)
        for run, weights in zip(runs, trained, strict=True):
            for coefficient in (*wise_ft, 1.0):
                predictor, scale = run["sha256"], None
                if "weight" not in weights:
                    similarities = (
                        apply_adapter(images.vectors, weights, "image")
                        @ apply_adapter(texts.vectors, weights, "text").T
                    )
                elif manifest["name"] == run["dataset"] and coefficient > 0:
                    predictor, scale = f"{predictor} {coefficient}", 1.0
                    similarities = apply_head(images.vectors, weights)
                    if coefficient < 1:
                        zero_shot = texts.metadata["logit_scale"] * compare(images, texts)
                        similarities = (1 - coefficient) * zero_shot + coefficient * similarities
                else:
                    predictor, similarities = "zero_shot", compare(images, texts)
                path = write_cached_predictions(
                    outputs.predictions, predictor, manifest, images, texts, similarities, scale
                )
                key = run["model"], run["method"], run["dataset"], coefficient
                scores.append(score_predictions(*key, manifest, path))
    scores.sort(key=lambda each: (each.outcome["trained_on"], each.outcome["wise_ft"]))
    write_scores(scores, outputs)


def compare(images: Embeddings, texts: Embeddings) -> np.ndarray:
    """Return the cosines (N, C) of images and captions."""
    return normalize_rows(images.vectors) @ normalize_rows(texts.vectors).T


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


def write_cached_predictions(
    folder: Path, predictor: str, manifest: Manifest, images: Embeddings, texts: Embeddings | None,
    similarities: np.ndarray, scale: float | None = None,
) -> Path:  # fmt: skip
    """Write predictions from embeddings to the file named by what they depend on; return it.

    `predictor` is the digest of the trained weights, or "zero_shot". `texts` is None for
    predictors that use no captions; their similarities are logits. `scale` turns similarities into
    logits; by default it is the model's.
    """
    captions = None if texts is None else get_captions(texts)
    path = get_predictions_path(
        folder, predictor, images.metadata["weights"], images.metadata["preprocessing"],
        manifest["digest"], captions, "from embeddings",
    )  # fmt: skip
    ids, labels = images.columns["id"], images.columns["label"]
    if scale is None:
        scale = 1.0 if texts is None else texts.metadata["logit_scale"]
    write_predictions(path, ids, labels, similarities, scale, get_dataset_title(manifest))
    return path
