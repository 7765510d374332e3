"""Tests of the classifiers that start from the captions: text_probe and LP++."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from foretune.core.grid import expand_grid
from foretune.encoders.cache import normalize_rows, read_embeddings
from foretune.evaluation.on_embeddings import evaluate_adapter, evaluate_zero_shot
from foretune.evaluation.scores import EvaluationOutputs, EvaluationTest
from foretune.training.lp_plus_plus import MOST_SHOTS, StackedLPPlusPlus
from foretune.training.on_embeddings import fit_on_embeddings
from foretune.training.stacked_trials import StackedOptimizer
from foretune.training.text_probe import StackedTextProbes
from foretune.training.trials import JobSpec

RECIPE = {
    "optimizer": "sgd", "momentum": 0.9, "epochs": 3, "batch_size": 32, "schedule": "constant",
    "warmup_epochs": 0, "label_smoothing": 0,
}  # fmt: skip


def grid(**lists):
    return expand_grid({"parts": 1, "search": {"kind": "grid"}, "weight_decay": [0.0], **lists})


def draw(images, classes, width=6):
    """Return unit images (N, d), their labels, and raw captions (C, d)."""
    torch.manual_seed(0)
    labels = torch.arange(images) % classes
    vectors = torch.randn(images, width) + torch.eye(classes, width)[labels]
    return F.normalize(vectors), labels, torch.randn(classes, width) * 3


def fit(method, task, output, trials, dataset="mnist", **changes):
    run = {"model": "clip_mini", "method": method, "dataset": dataset}
    job = JobSpec(run, {**RECIPE, **changes}, trials, 0, task / "dataset", output)
    fit_on_embeddings(job, task / "embeddings", lambda line: None)
    return json.loads((output / "best.json").read_text())


def evaluate(task, output, selections, wise_ft=()):
    """Return the rows of an evaluation on the small task's test and its shifted test."""
    output.mkdir(exist_ok=True)
    names = ("rows", "classes", "confusions")
    outputs = EvaluationOutputs(output / "predictions", *(output / f"{n}.parquet" for n in names))
    texts = task / "embeddings/text.parquet"
    tests = [
        EvaluationTest(task / "dataset" / name, task / f"embeddings/{name}/test.parquet", texts)
        for name in ("", "shifted/few")
    ]
    if selections:
        evaluate_adapter(selections, tests, outputs, wise_ft)
    else:
        evaluate_zero_shot("clip_mini", tests, outputs)
    return pd.read_parquet(output / "rows.parquet")


def test_text_probe_starts_as_the_zero_shot_classifier_and_has_autograds_gradients():
    images, labels, texts = draw(images=9, classes=5)
    stack = StackedTextProbes(grid(learning_rate=[1.0, 0.1]), texts, 20.0)
    zero_shot = 20 * F.cosine_similarity(images[None], texts[:, None], dim=2)
    torch.testing.assert_close(stack.logits(images), zero_shot.expand(2, -1, -1))
    stack.parameters = [torch.randn_like(p) for p in stack.parameters]
    losses, gradients = stack.losses(images, labels, 0.1)
    for i in range(2):
        layer = {name: p.requires_grad_() for name, p in stack.get_trained_weights(i).items()}
        loss = F.cross_entropy(
            images @ layer["weight"] + layer["bias"], labels, label_smoothing=0.1
        )
        loss.backward()
        torch.testing.assert_close(losses[i], loss.detach())
        torch.testing.assert_close(gradients[0][i], layer["weight"].grad.T)
        torch.testing.assert_close(gradients[1][i], layer["bias"].grad)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_a_step_of_text_probe_moves_a_logit_by_no_more_than_twice_the_learning_rate(scale):
    images, labels, texts = draw(images=8, classes=4)
    stack = StackedTextProbes(grid(learning_rate=[0.5]), texts, scale)
    before = stack.logits(images)
    optimizer = StackedOptimizer({**RECIPE, "momentum": 0}, stack.trials, stack.parameters)
    optimizer.step(stack.losses(images, labels, 0)[1], 1)
    moved = (stack.logits(images) - before).abs().max().item()
    assert 0.01 < moved <= 1.0


def test_weight_decay_draws_text_probe_back_to_the_zero_shot_classifier():
    *_, texts = draw(images=8, classes=4)
    stack = StackedTextProbes(grid(learning_rate=[0.1], weight_decay=[1.0]), texts, 5.0)
    start = stack.get_trained_weights(0)
    for parameter in stack.parameters:
        parameter += 1
    optimizer = StackedOptimizer({**RECIPE, "momentum": 0}, stack.trials, stack.parameters)
    for _ in range(100):
        optimizer.step([torch.zeros_like(p) for p in stack.parameters], 1)
    for name, tensor in stack.get_trained_weights(0).items():
        torch.testing.assert_close(tensor, start[name], atol=1e-4, rtol=0)


def test_text_probe_without_learning_is_exactly_the_zero_shot_model(small_task, tmp_path):
    best = fit("text_probe", small_task, tmp_path, grid(learning_rate=[0.0]))
    images = read_embeddings(small_task / "embeddings/val.parquet")
    texts = read_embeddings(small_task / "embeddings/text.parquet")
    images, labels = torch.from_numpy(images.vectors.copy()), images.columns["label"]
    cosines = F.normalize(images) @ F.normalize(torch.from_numpy(texts.vectors.copy())).T
    assert best["val_accuracy"] == (cosines.argmax(dim=1).numpy() == labels).mean()
    rows = evaluate(small_task, tmp_path / "own", [tmp_path / "best.json"])
    zero_shot = evaluate(small_task, tmp_path / "zero", [])
    assert list(rows.accuracy) == list(zero_shot.accuracy)
    np.testing.assert_allclose(rows.nll, zero_shot.nll, rtol=1e-4)


@pytest.mark.parametrize("method", ["text_probe", "lp_plus_plus"])
def test_own_tests_are_predicted_by_the_head_and_others_zero_shot(method, small_task, tmp_path):
    trials = grid(learning_rate=[1.0])
    own = fit(method, small_task, tmp_path / "own", trials)
    fit(method, small_task, tmp_path / "other", trials, dataset="other")
    selections = [tmp_path / name / "best.json" for name in ("own", "other")]
    rows = evaluate(small_task, tmp_path, selections, wise_ft=[0.0, 0.5])
    key = rows[["trained_on", "wise_ft", "split"]].apply(tuple, axis=1)
    assert list(key) == [
        (task, coefficient, split)
        for task in ("mnist", "other")
        for coefficient in (0.0, 0.5, 1.0)
        for split in ("test", "few")
    ]
    zero_shot = evaluate(small_task, tmp_path / "zero", [])
    # A classifier of another task has no class of this one: the model is what it was.
    assert set(rows[rows.trained_on == "other"].predictions) == set(zero_shot.predictions)
    assert list(rows.predictions[:2]) == list(zero_shot.predictions)
    layer = {name: tensor.numpy() for name, tensor in load_file(own["trained_weights"]).items()}
    images = read_embeddings(small_task / "embeddings/test.parquet")
    texts = read_embeddings(small_task / "embeddings/text.parquet")
    unit, captions = (normalize_rows(cache.vectors) for cache in (images, texts))
    start = captions.T * texts.metadata["logit_scale"]
    for coefficient, accuracy in zip((0.5, 1.0), rows.accuracy[2:6:2], strict=True):
        # The interpolation of the weights, of which the evaluation takes that of the logits.
        weight = (1 - coefficient) * start + coefficient * layer["weight"]
        predicted = (unit @ weight + coefficient * layer["bias"]).argmax(axis=1)
        assert accuracy == (predicted == images.columns["label"]).mean()
    assert rows.accuracy[4] > rows.accuracy[0]


class ReferenceLPPlusPlus:
    """LP++ step by step, as its paper's code takes it, for one trial and without a bias."""

    def __init__(self, images, labels, texts):
        self.images, self.labels, self.texts = images, labels, F.normalize(texts)
        classes = range(len(texts))
        self.w = torch.stack([images[labels == k].sum(dim=0) for k in classes]).requires_grad_()
        cosines = [(images[labels == k] @ self.texts[k]).mean() for k in classes]
        start = 250 * torch.stack(cosines).mean()
        self.a = torch.full((len(texts),), start.item()).requires_grad_()
        n = len(images)
        self.step = 4 * n / torch.linalg.matrix_norm(images, 2) ** 2  # its square: an eigenvalue
        largest = max(((images @ text) ** 2).sum() for text in self.texts)
        self.caption_step = n / (4 * largest)

    def loss(self):
        classifier = self.w + self.a[:, None] * self.texts
        return F.cross_entropy(self.images @ classifier.T, self.labels)


def make_lp_plus_plus(images, labels, texts, momentum=0.0, **lists):
    trials = grid(**{"learning_rate": [1.0], **lists})
    return StackedLPPlusPlus(trials, texts, images, labels, momentum)


def test_lp_plus_plus_starts_and_steps_as_the_papers_code():
    images, labels, texts = draw(images=40, classes=4)
    reference = ReferenceLPPlusPlus(images, labels, texts)
    stack = make_lp_plus_plus(images, labels, texts, learning_rate=[1.0, 0.1])
    losses, gradients = stack.losses(images, labels, 0)
    loss = reference.loss()
    loss.backward()
    for i in range(2):
        torch.testing.assert_close(stack.parameters[0][i], reference.w.detach())
        torch.testing.assert_close(stack.parameters[1][i], reference.a.detach())
        torch.testing.assert_close(losses[i], loss.detach())
        torch.testing.assert_close(gradients[0][i], reference.step * reference.w.grad)
        # One step of the captions' weights in ten of the others: each goes a tenth as far.
        torch.testing.assert_close(gradients[1][i] * 10, reference.caption_step * reference.a.grad)


def test_lp_plus_plus_ends_where_the_papers_code_does():
    """Both minimize the same convex loss; the cycle of the blocks does not change its minimum."""
    images, labels, texts = draw(images=40, classes=4)
    reference = ReferenceLPPlusPlus(images, labels, texts)
    optimizer = torch.optim.SGD([reference.w], reference.step.item(), momentum=0.9)
    for iteration in range(300):
        optimizer.zero_grad()
        reference.a.grad = None
        reference.loss().backward()
        optimizer.step()
        if (iteration + 1) % 10 == 0:
            reference.a.data -= reference.caption_step * reference.a.grad
    stack = make_lp_plus_plus(images, labels, texts, momentum=0.9)
    stacked = StackedOptimizer(RECIPE, stack.trials, stack.parameters)
    for _ in range(300):
        losses, gradients = stack.losses(images, labels, 0)
        stacked.step(gradients, 1)
    assert losses[0].item() == pytest.approx(reference.loss().item(), rel=0.01)
    changes = stack.parameters[1][0] - make_lp_plus_plus(images, labels, texts).parameters[1][0]
    assert changes.abs().max() > 1e-3  # the captions' weights are trained
    torch.testing.assert_close(stack.parameters[1][0], reference.a.detach(), rtol=0.05, atol=0)


def test_lp_plus_plus_starts_from_no_more_images_than_the_papers_most_shots():
    images, labels, texts = draw(images=200, classes=4)
    w, _ = make_lp_plus_plus(images, labels, texts).parameters
    means = torch.stack([images[labels == k].mean(dim=0) for k in range(4)])
    torch.testing.assert_close(w[0], MOST_SHOTS * means)


def test_lp_plus_plus_takes_a_class_without_training_images():
    images, labels, texts = draw(images=9, classes=3)
    texts = torch.cat([texts, torch.ones(1, 6)])
    stack = make_lp_plus_plus(images, labels, texts)
    losses, gradients = stack.losses(images, labels, 0)
    assert losses.isfinite().all() and all(g.isfinite().all() for g in gradients)
    assert stack.parameters[0][0, 3].abs().max() == 0
    assert all(tensor.isfinite().all() for tensor in stack.get_trained_weights(0).values())
