"""Evaluation of zero-shot models, linear probes and CLIP-Adapters on cached embeddings.

Nothing here needs torch.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file as load_arrays

from foretune.data.prepared import get_dataset_title, read_manifest
from foretune.encoders.cache import Embeddings, normalize_rows, read_embeddings
from foretune.evaluation.scores import (
    get_predictions_path,
    read_captions,
    read_selection,
    score_predictions,
    write_predictions,
    write_scores,
)


def evaluate_zero_shot(
    model: str, tests: list[Path], image_caches: list[Path], text_caches: list[Path],
    predictions: Path, output: Path, classes: Path, confusions: Path,
) -> None:  # fmt: skip
    """The base model on every test, from the cached embeddings of its images and captions.

    predictions: the folder of files by digest; output, classes, confusions: as `write_scores`
    has them.
    """
    scores = []
    for test, image_cache, text_cache in zip(tests, image_caches, text_caches, strict=True):
        manifest, images, texts = read_cached_test(test, image_cache, text_cache)
        predicted = (normalize_rows(images.vectors) @ normalize_rows(texts.vectors).T).argmax(
            axis=1
        )
        path = write_cached_predictions(
            predictions, "zero_shot", manifest, images, texts, predicted
        )
        scores.append(score_predictions(model, "zero_shot", None, None, manifest, path))
    write_scores(scores, output, classes, confusions)


def evaluate_probe(
    selections: list[Path], tests: list[Path], image_caches: list[Path], predictions: Path,
    output: Path, classes: Path, confusions: Path,
) -> None:  # fmt: skip
    """Selected linear probes, each on the tests of its own task, the shifted ones too."""
    runs = {run["dataset"]: run for run in map(read_selection, selections)}
    scores = []
    for test, image_cache in zip(tests, image_caches, strict=True):
        manifest = read_manifest(test)
        run = runs[manifest["name"]]
        images = read_embeddings(image_cache, dataset=manifest["digest"])
        layer = load_arrays(run["trained_weights"])
        predicted = (images.vectors @ layer["weight"] + layer["bias"]).argmax(axis=1)
        path = write_cached_predictions(
            predictions, run["sha256"], manifest, images, None, predicted
        )
        scores.append(
            score_predictions(run["model"], run["method"], run["dataset"], 1.0, manifest, path)
        )
    write_scores(scores, output, classes, confusions)


def evaluate_adapter(
    selections: list[Path], tests: list[Path], image_caches: list[Path],
    text_caches: list[Path], predictions: Path, output: Path, classes: Path, confusions: Path,
) -> None:  # fmt: skip
    """Selected CLIP-Adapters, each on every test: they adapt any images and captions."""
    runs = [read_selection(path) for path in selections]
    all_weights, scores = [load_arrays(run["trained_weights"]) for run in runs], []
    for test, image_cache, text_cache in zip(tests, image_caches, text_caches, strict=True):
        manifest, images, texts = read_cached_test(test, image_cache, text_cache)
        for run, trained_weights in zip(runs, all_weights, strict=True):
            captions = apply_adapter(texts.vectors, trained_weights, "text")
            # Captions of unit length are enough: an image's own length changes no argmax.
            lengths = np.linalg.norm(captions, axis=1, keepdims=True)
            captions /= np.maximum(lengths, 1e-12)
            predicted = (
                apply_adapter(images.vectors, trained_weights, "image") @ captions.T
            ).argmax(axis=1)
            path = write_cached_predictions(
                predictions, run["sha256"], manifest, images, texts, predicted
            )
            scores.append(
                score_predictions(run["model"], run["method"], run["dataset"], 1.0, manifest, path)
            )
    scores.sort(key=lambda each: each[0]["trained_on"])
    write_scores(scores, output, classes, confusions)


def apply_adapter(
    vectors: np.ndarray, trained_weights: dict[str, np.ndarray], side: str
) -> np.ndarray:
    """What the adapter of one side ("image" or "text") makes of raw vectors (N, d)."""
    hidden = np.maximum(vectors @ trained_weights[f"{side}.down"].T, 0)
    ratio = float(trained_weights["ratio"])
    return ratio * np.maximum(hidden @ trained_weights[f"{side}.up"].T, 0) + (1 - ratio) * vectors


def read_cached_test(test: Path, image_cache: Path, text_cache: Path):
    """A test's manifest and the embeddings of its images and its captions, of one model."""
    manifest = read_manifest(test)
    images = read_embeddings(image_cache, dataset=manifest["digest"])
    return manifest, images, read_captions(text_cache, manifest, weights=images.metadata["weights"])


def write_cached_predictions(
    folder: Path, predictor: str, manifest: dict, images: Embeddings, texts: Embeddings | None,
    predicted: np.ndarray,
) -> Path:  # fmt: skip
    """Write predictions from embeddings under the digest of what they were made from."""
    made_from = [predictor, images.metadata["weights"], images.metadata["preprocessing"]]
    captions = None if texts is None else list(texts.columns["caption"])
    path = get_predictions_path(folder, *made_from, manifest["digest"], captions, "from embeddings")
    ids, labels = images.columns["id"], images.columns["label"]
    write_predictions(path, ids, labels, predicted, get_dataset_title(manifest))
    return path
