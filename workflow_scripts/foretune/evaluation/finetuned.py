"""Accuracy of fine-tuned models, those of one (model, method), on every test.

Predictions are kept one file a (checkpoint, coefficient, test), named by a digest of all they
depend on, so that a new dataset costs its own row and column only, and a failing job loses
nothing.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch

from foretune.core.files import write_json
from foretune.core.parquet import write_parquet
from foretune.data.prepared import get_dataset_title, read_manifest, read_split
from foretune.encoders.cache import read_task_embeddings
from foretune.encoders.encode import DEVICE, encode_captions, encode_images
from foretune.encoders.image_cache import prepare_images
from foretune.encoders.loading import load_model
from foretune.encoders.streams import ArraySource
from foretune.encoders.zero_shot import predict_classes
from foretune.evaluation.scores import (
    DRIFT_SCHEMA,
    get_predictions_path,
    read_captions,
    read_selection,
    score_predictions,
    write_predictions,
    write_scores,
)
from foretune.measures.drift import measure_drift
from foretune.training.methods import apply_trained_weights

TRANSPORT_SAMPLE = (
    500  # images between whose clouds the transport is solved: time grows with its cube
)


def evaluate_model(
    selections: list[Path], model_spec: dict, wise_ft: list[float], tests: list[Path],
    text_caches: list[Path], embeddings: Path, prepared: Path, predictions: Path, code: str,
    output: Path, classes: Path, confusions: Path, drift: Path, log=print,
) -> None:  # fmt: skip
    """Every selected checkpoint of one base model on every test, with that test's captions.

    wise_ft: coefficients c in [0, 1) of further evaluations at (1 - c) zero-shot + c tuned
    weights (WiSE-FT, Wortsman et al. 2022, equation 1). prepared: where prepared images are
    kept (see images.py). predictions: the folder of files by digest; code: digest of the code
    that evaluates. The model is loaded, and weights are set, only where predictions are missing.
    drift: a file of rows on how far the embeddings of each task's own training images moved
    (distance.py), from those of the base model in `embeddings`, a folder with one a dataset.
    """
    tuned, scores, drifts = None, [], []
    described = [describe_test(*pair) for pair in zip(tests, text_caches, strict=True)]
    for run in map(read_selection, selections):
        for coefficient in (*wise_ft, 1.0):
            paths = [
                get_predictions_path(predictions, run["sha256"], coefficient, each.made_from, code)
                for each in described
            ]
            # Of the tuned weights themselves: how far they moved their own task's embeddings.
            kept = [
                (path.with_suffix(".drift.json"), each.folder)
                for path, each in zip(paths, described, strict=True)
                if coefficient == 1 and each.is_own(run)
            ]
            if not all(path.exists() for path in (*paths, *(path for path, _ in kept))):
                tuned = tuned or FineTunedModel(model_spec, prepared, log)
                tuned.load(run["trained_weights"], coefficient)
            for path, test in zip(paths, described, strict=True):
                if not path.exists():
                    rows = read_split(test.folder, "test", ["id", "label"])
                    predicted = tuned.predict(test)
                    title = get_dataset_title(test.manifest)
                    write_predictions(path, rows["id"], rows["label"], predicted, title)
                key = run["model"], run["method"], run["dataset"], coefficient
                scores.append(score_predictions(*key, test.manifest, path))
                part = f" at {coefficient}" if wise_ft else ""
                log(
                    f"tuned on {run['dataset']}{part}, tested on {get_dataset_title(test.manifest)}: "
                    f"{scores[-1][0]['accuracy']:.3f}"
                )
            for path, dataset in kept:
                if not path.exists():
                    write_json(tuned.measure_drift(dataset, embeddings / run["dataset"]), path)
                who = {name: run[name] for name in ("model", "method", "dataset")}
                drifts.append(who | json.loads(path.read_text()))
    write_scores(scores, output, classes, confusions)
    write_parquet(pa.Table.from_pylist(drifts, DRIFT_SCHEMA), drift, {"kind": "drift"})


@dataclass
class EvaluationTest:
    """A test, its captions, and what predictions depend on beside the weights."""

    folder: Path
    manifest: dict
    captions: list[str]
    made_from: list

    def is_own(self, run: dict) -> bool:
        """Whether it is the own test of the dataset that a checkpoint was tuned on."""
        return self.manifest["name"] == run["dataset"] and self.manifest["split"] == "test"


def describe_test(folder: Path, text_cache: Path) -> EvaluationTest:
    manifest = read_manifest(folder)
    texts = read_captions(text_cache, manifest)
    captions = list(texts.columns["caption"])
    base = [texts.metadata["weights"], texts.metadata["preprocessing"]]
    return EvaluationTest(folder, manifest, captions, [*base, manifest["digest"], captions])


class FineTunedModel:
    """A base model that takes the trained weights of one checkpoint after another."""

    def __init__(self, model_spec: dict, prepared: Path, log=print):
        self.model, self.preprocess, self.tokenizer = load_model(model_spec, DEVICE)
        self.base = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.prepared, self.log = prepared, log

    @torch.no_grad()
    def load(self, trained_weights: str, coefficient: float) -> None:
        """Weights at (1 - coefficient) base + coefficient tuned; 1 is the tuned ones exactly."""
        self.vectors: dict[str, torch.Tensor] = {}
        self.model.load_state_dict(self.base)
        if coefficient == 0:
            return
        apply_trained_weights(self.model, trained_weights)
        if coefficient < 1:
            for name, tensor in self.model.state_dict().items():
                if tensor.is_floating_point():
                    tensor.copy_(torch.lerp(self.base[name], tensor, coefficient))

    def predict(self, test: EvaluationTest) -> torch.Tensor:
        # A test may be another task's shifted test too: the same images, other captions.
        digest = test.manifest["test_digest"]
        if digest not in self.vectors:
            images = prepare_images(test.folder, "test", self.preprocess, self.prepared, self.log)
            self.vectors[digest] = encode_images(self.model, self.preprocess, images)
        return predict_classes(
            self.vectors[digest], encode_captions(self.model, self.tokenizer, test.captions)
        )

    def measure_drift(self, dataset: Path, embeddings: Path) -> dict[str, float]:
        """How far the dataset's training images are from where the base model had them."""
        before, texts = read_task_embeddings(embeddings, "train", read_manifest(dataset)["digest"])
        images = prepare_images(dataset, "train", self.preprocess, self.prepared, self.log)
        after = encode_images(self.model, self.preprocess, images).numpy()
        captions = encode_captions(self.model, self.tokenizer, list(texts.columns["caption"]))
        labels = before.columns["label"]
        return measure_drift(
            ArraySource(before.vectors, texts.vectors, labels),
            ArraySource(after, captions.numpy(), labels),
            TRANSPORT_SAMPLE,
        )
