"""Evaluation of the fine-tuned models of one (model, method) on every test.

Predictions are kept in one file per (checkpoint, WiSE-FT coefficient, test), named by a digest of
everything they depend on. A new dataset therefore costs only its own predictions, and a job that
fails keeps those it has made.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F

from foretune.core.entries import ModelSpec, Selection
from foretune.core.files import read_json, write_json
from foretune.core.parquet import write_parquet
from foretune.core.variants import get_base_method
from foretune.data.prepared import Manifest, get_dataset_title, read_manifest, read_split
from foretune.encoders.cache import read_task_embeddings
from foretune.encoders.captions import Captions, get_captions
from foretune.encoders.encode import DEVICE, ENCODE_BATCH, encode_captions, encode_images
from foretune.encoders.image_cache import prepare_images
from foretune.encoders.loading import load_model
from foretune.encoders.streams import ArraySource
from foretune.evaluation.calibration import fit_temperature
from foretune.evaluation.scores import (
    DRIFT_SCHEMA,
    EvaluationOutputs,
    EvaluationTest,
    get_predictions_path,
    read_selections,
    score_predictions,
    write_predictions,
    write_scores,
)
from foretune.measures.drift import measure_drift
from foretune.training.base_weights import BaseWeights
from foretune.training.methods import apply_trained_weights

# Training images whose drift is measured: they are embedded again by every checkpoint.
DRIFT_SAMPLE = 2000
# Those of them that the optimal transport is solved for: its time grows with their cube.
TRANSPORT_SAMPLE = 500


@dataclass(frozen=True)
class BaseModel:
    """A base model, and the folders that keep its embeddings and its prepared images."""

    spec: ModelSpec
    embeddings: Path  # with one subfolder per dataset
    prepared: Path  # see encoders/image_cache.py
    batch_size: int = ENCODE_BATCH  # images per forward pass


@dataclass(frozen=True)
class FineTunedOutputs(EvaluationOutputs):
    """The outputs of an evaluation, and the table of how far each checkpoint moved embeddings."""

    drift: Path  # of DRIFT_SCHEMA


@dataclass(frozen=True)
class CaptionedTest:
    """A test with its captions, and the values its predictions depend on besides the weights."""

    folder: Path
    manifest: Manifest
    captions: Captions
    made_from: list

    def is_own_test(self, run: Selection) -> bool:
        """Return whether this is the unshifted test of the dataset of a checkpoint."""
        return self.manifest["name"] == run["dataset"] and self.manifest["split"] == "test"


def evaluate_model(
    selections: list[Path], base: BaseModel, tests: list[EvaluationTest],
    outputs: FineTunedOutputs, code: str, wise_ft: Sequence[float] = (),
    temperature_scaling: bool = False, log=print,
) -> None:  # fmt: skip
    """Evaluate every selected checkpoint of a base model on every test with that test's captions.

    The drift of the embeddings is measured for each checkpoint on its own task's training images,
    compared with the base model's embeddings of them. The model is loaded only if a prediction or
    a drift is missing.

    Args:
        tests: with the files of the captions' embeddings; the images' embeddings are not read.
        code: digest of the code that evaluates; a new one makes all predictions anew.
        wise_ft: coefficients c in [0, 1). The weights (1 - c) zero-shot + c fine-tuned are
            evaluated too (WiSE-FT; Wortsman et al. 2022, equation 1).
        temperature_scaling: fit each checkpoint's temperature on its own task's validation images.
    """
    model, scores, drifts = FineTunedModel(base, log), [], []
    captioned = [add_captions(test) for test in tests]
    for run in read_selections(selections):
        for coefficient in (*wise_ft, 1.0):
            model.choose(run["trained_weights"], coefficient, run["dataset"])
            paths = [
                get_predictions_path(
                    outputs.predictions, run["sha256"], coefficient, test.made_from, code,
                    *(["head"] if has_own_head(run, test) else []), scaled=temperature_scaling,
                )
                for test in captioned
            ]  # fmt: skip
            temperature = None
            for path, test in zip(paths, captioned, strict=True):
                title = get_dataset_title(test.manifest)
                if not path.exists():
                    if temperature_scaling and temperature is None:
                        own = next(test for test in captioned if test.is_own_test(run))
                        labels = read_split(own.folder, "val", ["label"])["label"]
                        temperature = fit_temperature(*model.compare(own, "val"), labels)
                    # The temperature of a classifier is not that of captions.
                    alike = has_own_head(run, test) == trains_head(run)
                    rows = read_split(test.folder, "test", ["id", "label"])
                    write_predictions(
                        path, rows["id"], rows["label"], *model.compare(test), title,
                        temperature if alike else None,
                    )  # fmt: skip
                key = run["model"], run["method"], run["dataset"], coefficient
                scores.append(score_predictions(*key, test.manifest, path))
                at_coefficient = f" at {coefficient}" if wise_ft else ""
                log(
                    f"fine-tuned on {run['dataset']}{at_coefficient}, tested on {title}: "
                    f"{scores[-1].outcome['accuracy']:.3f}"
                )
            for path, test in zip(paths, captioned, strict=True):
                if coefficient == 1 and test.is_own_test(run):
                    drifts.append(read_or_measure_drift(model, run, test, path))
    write_scores(scores, outputs)
    write_parquet(pa.Table.from_pylist(drifts, DRIFT_SCHEMA), outputs.drift, {"kind": "drift"})


def has_own_head(run: Selection, test: CaptionedTest) -> bool:
    """Return whether a checkpoint predicts a test by a classifier, in place of captions."""
    return trains_head(run) and test.manifest["name"] == run["dataset"]


def trains_head(run: Selection) -> bool:
    """Return whether a checkpoint has a classifier of its own task."""
    return get_base_method(run["method"]) == "lp_ft"


def add_captions(test: EvaluationTest) -> CaptionedTest:
    manifest, texts = test.read_manifest(), test.read_captions()
    captions = get_captions(texts)
    base = [texts.metadata["weights"], texts.metadata["preprocessing"]]
    return CaptionedTest(test.folder, manifest, captions, [*base, manifest["digest"], captions])


def read_or_measure_drift(
    model: "FineTunedModel", run: Selection, test: CaptionedTest, predictions: Path
) -> dict[str, Any]:
    """Return the drift row of a checkpoint, kept in a file next to its own test's predictions."""
    path = predictions.with_suffix(".drift.json")
    if not path.exists():
        write_json(model.measure_drift(test.folder), path)
    key = {"model": run["model"], "method": run["method"], "dataset": run["dataset"]}
    return key | read_json(path)


class FineTunedModel:
    """A base model that takes the trained weights of one checkpoint after another.

    The model is loaded, and the chosen weights are set, when they are first used.
    """

    def __init__(self, base: BaseModel, log=print):
        self.base, self.log = base, log
        self.chosen = self.current = ("", 0.0)  # file of trained weights, coefficient
        self.dataset = ""  # on which they were trained
        # Their classifier of that dataset, if they have one.
        self.head: dict[str, torch.Tensor] = {}
        self.vectors: dict[str, torch.Tensor] = {}  # of each test's images, by its rows' digest

    def choose(self, trained_weights: str, coefficient: float, dataset: str = "") -> None:
        """Choose the weights (1 - coefficient) base + coefficient fine-tuned; 1 is exact.

        `dataset` is the name of the one that they were trained on.
        """
        self.chosen, self.dataset = (trained_weights, coefficient), dataset

    @functools.cached_property
    def loaded(self) -> tuple:
        """The model, its preprocessing, its tokenizer, and its base weights."""
        model, preprocess, tokenizer = load_model(self.base.spec, DEVICE)
        return model, preprocess, tokenizer, BaseWeights(model)

    @torch.no_grad()
    def get_model(self) -> tuple:
        """Return the model with the chosen weights, its preprocessing and its tokenizer."""
        model, preprocess, tokenizer, base_weights = self.loaded
        if self.current != self.chosen:
            trained_weights, coefficient = self.chosen
            self.vectors.clear()
            base_weights.restore()
            self.head = {}
            if coefficient > 0:
                self.head = apply_trained_weights(model, trained_weights, base_weights)
            if 0 < coefficient < 1:
                for name, tensor in model.state_dict().items():
                    if tensor.is_floating_point():
                        base = base_weights.tensors[name]
                        tensor.copy_(torch.lerp(base, tensor, coefficient))
            self.current = self.chosen
        return model, preprocess, tokenizer

    def encode_split(
        self, dataset: Path, split: str, rows: np.ndarray | slice = slice(None)
    ) -> torch.Tensor:
        """Return the raw embeddings (N, d) of the images with these row numbers of a split."""
        model, preprocess, _ = self.get_model()
        images = prepare_images(dataset, split, preprocess, self.base.prepared, self.log)
        return encode_images(model, preprocess, images[rows], self.base.batch_size)

    def compare(self, test: CaptionedTest, split: str = "test") -> tuple[torch.Tensor, float]:
        """Return the cosines (N, C) of a test's images and captions, and the logit scale.

        If the chosen weights have a classifier of the test's dataset, return its logits, and 1.

        split: "test", or "val" for the validation images of the test's dataset.
        """
        model, _, tokenizer = self.get_model()
        # A test can be another task's shifted test too: the same rows with other captions.
        digest = test.manifest["splits"][split]["digest"]
        if digest not in self.vectors:
            self.vectors[digest] = self.encode_split(test.folder, split)
        captions = encode_captions(model, tokenizer, test.captions)
        images, texts = F.normalize(self.vectors[digest], dim=-1), F.normalize(captions, dim=-1)
        scale, (_, coefficient) = model.logit_scale.exp().item(), self.current
        if not self.head or test.manifest["name"] != self.dataset:
            return images @ texts.T, scale
        # The classifier started as the captions' (as in WiSE-FT's own code), which are not trained.
        weight = torch.lerp(scale * texts, self.head["weight"].to(texts), coefficient)
        return images @ weight.T + coefficient * self.head["bias"].to(texts), 1.0

    def measure_drift(self, dataset: Path) -> dict[str, float]:
        """Measure how far a dataset's training images are from the base model's embeddings.

        A dataset of more than DRIFT_SAMPLE images is measured by a random sample of that size.
        """
        manifest = read_manifest(dataset)
        before, texts = read_task_embeddings(
            self.base.embeddings / manifest["name"], "train", manifest["digest"]
        )
        labels = before.columns["label"]
        rows = np.random.default_rng(0).permutation(len(labels))[:DRIFT_SAMPLE]
        rows.sort()  # they are read from a file in this order
        after = self.encode_split(dataset, "train", rows).numpy()
        model, _, tokenizer = self.get_model()
        captions = encode_captions(model, tokenizer, get_captions(texts))
        return measure_drift(
            ArraySource(before.vectors[rows], texts.vectors, labels[rows]),
            ArraySource(after, captions.numpy(), labels[rows]),
            TRANSPORT_SAMPLE,
        )
