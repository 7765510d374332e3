"""Evaluation of zero-shot models, linear probes and CLIP-Adapters on cached embeddings.

Nothing in this module needs torch.
"""

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
        similarities = normalize_rows(images.vectors) @ normalize_rows(texts.vectors).T
        path = write_cached_predictions(
            outputs.predictions, "zero_shot", manifest, images, texts, similarities
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
    selections: list[Path], tests: list[EvaluationTest], outputs: EvaluationOutputs
) -> None:
    """Evaluate each selected CLIP-Adapter on every test: it adapts any images and captions."""
    runs = read_selections(selections)
    adapters, scores = [load_arrays(run["trained_weights"]) for run in runs], []
    for test in tests:
        manifest, images, texts = read_cached_test(test)
        for run, adapter in zip(runs, adapters, strict=True):
            similarities = (
                apply_adapter(images.vectors, adapter, "image")
                @ apply_adapter(texts.vectors, adapter, "text").T
            )
            path = write_cached_predictions(
                outputs.predictions, run["sha256"], manifest, images, texts, similarities
            )
            scores.append(
                score_predictions(run["model"], run["method"], run["dataset"], 1.0, manifest, path)
            )
    scores.sort(key=lambda each: each.outcome["trained_on"])
    write_scores(scores, outputs)


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
    similarities: np.ndarray,
) -> Path:  # fmt: skip
    """Write predictions from embeddings to the file named by what they depend on; return it.

    `predictor` is the digest of the trained weights, or "zero_shot". `texts` is None for
    predictors that use no captions; their similarities are logits.
    """
    captions = None if texts is None else get_captions(texts)
    path = get_predictions_path(
        folder, predictor, images.metadata["weights"], images.metadata["preprocessing"],
        manifest["digest"], captions, "from embeddings",
    )  # fmt: skip
    ids, labels = images.columns["id"], images.columns["label"]
    scale = 1.0 if texts is None else texts.metadata["logit_scale"]
    write_predictions(path, ids, labels, similarities, scale, get_dataset_title(manifest))
    return path
