"""Tests of linear probes and adapters: all trials of a grid together, on cached embeddings."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from checkout import CLIP_MINI
from foretune.core.errors import ForetuneError
from foretune.core.grid import expand_grid
from foretune.core.parquet import read_metadata, write_parquet
from foretune.encoders.cache import read_embeddings
from foretune.encoders.loading import load_model
from foretune.encoders.zero_shot import classification_logits
from foretune.training.clip_adapter import StackedAdapters, make_adapter_stacks
from foretune.training.linear_probe import StackedProbes
from foretune.training.on_embeddings import fit_on_embeddings
from foretune.training.optim import compute_learning_rate, make_optimizer
from foretune.training.stacked_trials import StackedOptimizer, clip_grad_norms, cross_entropy
from foretune.training.trials import JobSpec

RECIPE = {
    "optimizer": "sgd", "momentum": 0.9, "epochs": 4, "batch_size": 32, "schedule": "constant",
    "warmup_epochs": 0, "label_smoothing": 0, "ratio": 0.2,
}  # fmt: skip
LAYER = torch.nn.Linear


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def grid(**lists):
    return expand_grid({"parts": 1, "search": {"kind": "grid"}, "weight_decay": [0.0], **lists})


def fit(method, task, output, trials, log=lambda line: None, **changes):
    run = {"model": "clip_mini", "method": method, "dataset": "mnist"}
    job = JobSpec(run, {**RECIPE, **changes}, trials, 0, task / "dataset", output)
    fit_on_embeddings(job, task / "embeddings", log)
    epochs = pd.read_parquet(output / "epochs.parquet")
    return epochs, json.loads((output / "best.json").read_text())


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "sgd", "momentum": 0.9},
        {"optimizer": "sgd", "momentum": 0.0, "clip_norm": 0.5},
        {"optimizer": "adamw"},
        {"optimizer": "adamw", "clip_norm": 2.0},
    ],
)
def test_stacked_optimizer_steps_as_torchs_does_for_each_trial(settings, schedule):
    recipe = {"epochs": 3, "schedule": schedule, "warmup_epochs": 0.5, **settings}
    trials = grid(learning_rate=[0.1, 0.01], weight_decay=[0.0, 0.3])
    torch.manual_seed(0)
    start = [torch.randn(4, 3, 5).double(), torch.randn(4, 2).double()]
    # The gradients differ so much in size that some are clipped and some are not.
    size = torch.tensor([0.01, 0.1, 1.0, 10.0]).double()
    steps = [[torch.randn_like(p) * size.view(-1, *[1] * (p.dim() - 1)) for p in start]
             for _ in range(12)]  # fmt: skip
    stacked = [p.clone() for p in start]
    optimizer = StackedOptimizer(recipe, trials, stacked)
    shares = [optimizer.step([g.clone() for g in gradients], 4) for gradients in steps]
    assert shares == [compute_learning_rate(recipe, 1.0, step, 4) for step in range(12)]
    for i, trial in enumerate(trials):
        separate = [torch.nn.Parameter(p[i].clone()) for p in start]
        reference = make_optimizer(recipe, trial, separate)
        for step, gradients in enumerate(steps):
            for parameter, gradient in zip(separate, gradients, strict=True):
                parameter.grad = gradient[i].clone()
            if "clip_norm" in recipe:
                torch.nn.utils.clip_grad_norm_(separate, recipe["clip_norm"])
            rate = compute_learning_rate(recipe, trial["learning_rate"], step, 4)
            reference.param_groups[0]["lr"] = rate
            reference.step()
        for stacked_tensor, reference_tensor in zip(stacked, separate, strict=True):
            torch.testing.assert_close(
                stacked_tensor[i], reference_tensor.detach(), rtol=1e-12, atol=1e-12
            )


def test_clip_grad_norms_keeps_small_gradients():
    gradients = [torch.tensor([[3.0], [0.3]]), torch.tensor([[4.0], [0.4]])]
    clip_grad_norms(gradients, 1.0)
    torch.testing.assert_close(gradients[0], torch.tensor([[0.6], [0.3]]), rtol=1e-5, atol=0)
    torch.testing.assert_close(gradients[1], torch.tensor([[0.8], [0.4]]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("smoothing", [0, 0.3])
def test_cross_entropy_equals_torchs(smoothing):
    torch.manual_seed(0)
    logits = (torch.randn(3, 7, 5).double() * 5).requires_grad_()
    labels = torch.tensor([0, 6, 2, 2, 3])
    losses, gradients = cross_entropy(logits.detach(), labels, smoothing)
    expected = torch.stack([F.cross_entropy(trial_logits.T, labels, label_smoothing=smoothing)
                            for trial_logits in logits])  # fmt: skip
    torch.testing.assert_close(losses, expected.detach())
    torch.testing.assert_close(gradients, torch.autograd.grad(expected.sum(), logits)[0])


class SingleAdapter(torch.nn.Module):
    """Gao et al.'s adapter of both towers, for one trial, as a torch module."""

    def __init__(self, trained_weights, hidden, width, ratio):
        super().__init__()
        self.ratio = ratio
        self.sides = torch.nn.ModuleDict()
        for side in ("image", "text"):
            down, up = LAYER(width, hidden, bias=False), LAYER(hidden, width, bias=False)
            self.sides[side] = torch.nn.Sequential(down, torch.nn.ReLU(), up, torch.nn.ReLU())
            down.weight.data, up.weight.data = (
                trained_weights[f"{side}.down"],
                trained_weights[f"{side}.up"],
            )
        self.double()

    def forward(self, vectors, side):
        return self.ratio * self.sides[side](vectors) + (1 - self.ratio) * vectors


@pytest.mark.parametrize("ratio", [0.2, 1.0])
def test_stacked_adapters_gradients_equal_autograds(ratio):
    torch.manual_seed(0)
    trials = grid(learning_rate=[0.1, 0.01, 0.001], reduction=[4])
    texts, images = torch.randn(5, 16).double(), torch.randn(9, 16).double()
    labels = torch.randint(0, 5, (9,))
    stack = StackedAdapters(trials, 4, texts, 7.0, ratio, seed=3)
    for parameter in stack.parameters:
        parameter += torch.randn_like(parameter) / 10  # now the trials differ
    losses, gradients = stack.losses(images, labels, 0.1)
    for i in range(3):
        alone = SingleAdapter(stack.get_trained_weights(i), 4, 16, ratio)
        adapted_images, adapted_texts = alone(images, "image"), alone(texts, "text")
        logits = 7 * F.normalize(adapted_images, dim=1) @ F.normalize(adapted_texts, dim=1).T
        loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
        loss.backward()
        torch.testing.assert_close(losses[i], loss.detach())
        weights = [layer.weight for side in ("image", "text")
                   for layer in (alone.sides[side][0], alone.sides[side][2])]  # fmt: skip
        expected = [weights[0].grad, weights[1].grad.T, weights[2].grad, weights[3].grad.T]
        for stacked_tensor, reference_tensor in zip(gradients, expected, strict=True):
            torch.testing.assert_close(stacked_tensor[i], reference_tensor)


def test_stacked_adapters_start_as_torchs_linear_layers_do():
    trials = grid(learning_rate=[0.1, 0.01], reduction=[4])
    stack = StackedAdapters(trials, 128, torch.ones(2, 512), 1.0, 0.2, seed=0)
    down, up = stack.parameters[:2]
    torch.manual_seed(0)
    torch_down, torch_up = LAYER(512, 128, bias=False).weight, LAYER(128, 512, bias=False).weight
    for stacked_tensor, reference_tensor in ((down, torch_down), (up, torch_up)):
        assert torch.equal(stacked_tensor[0], stacked_tensor[1])
        largest = reference_tensor.abs().max().item()
        assert stacked_tensor.abs().max().item() == pytest.approx(largest, rel=1e-3)
        spread = reference_tensor.std().item()
        assert stacked_tensor[0].std().item() == pytest.approx(spread, rel=0.02)
    assert not torch.equal(down, stack.parameters[2])
    other = StackedAdapters(trials, 128, torch.ones(2, 512), 1.0, 0.2, seed=1)
    assert not torch.equal(down, other.parameters[0])


def test_make_adapter_stacks_puts_each_trial_in_one_stack_of_its_reduction():
    trials = grid(learning_rate=[10.0**-k for k in range(20)], reduction=[4, 8])
    stacks = make_adapter_stacks(trials, torch.ones(2, 16), 1.0, RECIPE, 0)
    assert [len(stack.trials) for stack in stacks] == [16, 4, 16, 4]
    stacked = [trial["trial"] for stack in stacks for trial in stack.trials]
    assert sorted(stacked) == list(range(40))
    for stack in stacks:
        (reduction,) = {trial["reduction"] for trial in stack.trials}
        assert stack.parameters[0].shape == (len(stack.trials), 16 // reduction, 16)


def test_stacked_probes_gradients_equal_autograds():
    torch.manual_seed(0)
    stack = StackedProbes(grid(learning_rate=[0.1, 0.01]), 6, 5)
    stack.parameters = [torch.randn_like(p) for p in stack.parameters]
    images, labels = torch.randn(9, 6), torch.randint(0, 5, (9,))
    losses, gradients = stack.losses(images, labels, 0)
    for i in range(2):
        trained_weights = {
            name: p.requires_grad_() for name, p in stack.get_trained_weights(i).items()
        }
        loss = F.cross_entropy(images @ trained_weights["weight"] + trained_weights["bias"], labels)
        weight, bias = torch.autograd.grad(
            loss, [trained_weights["weight"], trained_weights["bias"]]
        )
        torch.testing.assert_close(losses[i], loss.detach())
        torch.testing.assert_close(gradients[0][i], weight.T)
        torch.testing.assert_close(gradients[1][i], bias)


GRIDS = {
    "linear_probe": grid(learning_rate=[1.0, 0.1, 0.01], weight_decay=[0.0, 0.1]),
    "text_probe": grid(learning_rate=[10.0, 0.1], weight_decay=[0.0, 0.1]),
    "lp_plus_plus": grid(learning_rate=[1.0, 0.1], weight_decay=[0.0, 0.1]),
    "clip_adapter": grid(
        learning_rate=[0.3, 0.03], weight_decay=[0.0, 0.1], reduction=[4, 16, 128]
    ),
}


@pytest.mark.parametrize("method", GRIDS)
def test_fit_on_embeddings_gives_each_trial_what_it_gets_alone(method, small_task, tmp_path):
    trials = GRIDS[method]
    together, best = fit(method, small_task, tmp_path / "together", trials)
    assert list(zip(together.trial, together.epoch, strict=True)) == [
        (trial["trial"], epoch) for trial in trials for epoch in (1, 2, 3, 4)
    ]
    for trial in trials:
        alone, chosen = fit(method, small_task, tmp_path / str(trial["trial"]), [trial])
        rows = together[together.trial == trial["trial"]]
        for column in ("loss", "val_accuracy"):  # products of another shape round differently
            np.testing.assert_allclose(rows[column], alone[column], rtol=1e-4)
        for name in ("weight_decay", "reduction"):
            assert set(rows[name].dropna()) == ({trial[name]} if name in trial else set())
        assert set(rows.learning_rate_peak) == set(rows.learning_rate) == {trial["learning_rate"]}
        if trial["trial"] == best["trial"]:
            assert chosen["epoch"] == best["epoch"]
            one, other = load_file(best["trained_weights"]), load_file(chosen["trained_weights"])
            for name in one:
                torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-5)
    assert best["val_accuracy"] == together.val_accuracy.max()
    free = together[together.weight_decay == 0].groupby("trial").loss
    assert (free.last() < free.first()).all()


def test_fit_on_embeddings_writes_the_adapter_that_was_validated(small_task, tmp_path):
    # With a ratio of 1, nothing is left of the zero-shot model, which would classify by itself.
    trials = grid(learning_rate=[0.3], reduction=[4, 16])
    _, best = fit("clip_adapter", small_task, tmp_path, trials, ratio=1.0)
    trained_weights, hidden = load_file(best["trained_weights"]), 128 // best["reduction"]
    assert {name: tuple(tensor.shape) for name, tensor in trained_weights.items()} == {
        "image.down": (hidden, 128), "image.up": (128, hidden),
        "text.down": (hidden, 128), "text.up": (128, hidden), "ratio": (),
    }  # fmt: skip
    assert trained_weights["ratio"].item() == 1.0
    images = read_embeddings(small_task / "embeddings/val.parquet")
    texts = torch.from_numpy(read_embeddings(small_task / "embeddings/text.parquet").vectors.copy())
    alone = SingleAdapter(trained_weights, hidden, 128, 1.0)
    model, _, _ = load_model(CLIP_MINI)
    vectors = alone(torch.from_numpy(images.vectors.copy()).double(), "image")
    logits = classification_logits(model, vectors, alone(texts.double(), "text"))
    labels = torch.from_numpy(images.columns["label"].copy())
    assert (logits.argmax(dim=1) == labels).double().mean().item() == best["val_accuracy"]
    assert best["val_accuracy"] < 1


@pytest.mark.parametrize("method", GRIDS)
def test_fit_on_embeddings_ends_a_trial_that_diverges_and_no_other(method, small_task, tmp_path):
    others = [trial for trial in GRIDS[method] if trial.get("reduction", 4) == 4]
    diverging = {**others[0], "trial": 99, "learning_rate": 1e38}
    lines: list = []
    rows, best = fit(method, small_task, tmp_path / "with", [*others, diverging], lines.append)
    without, best_without = fit(method, small_task, tmp_path / "without", others)
    ended = rows[rows.trial == 99]
    assert list(ended.ended) == ["diverged"]
    assert sum("trial 99 diverged in epoch 1" in line for line in lines) == 1
    numbers = ["trial", "epoch", "loss", "val_accuracy", "ended"]
    other_rows = rows[rows.trial != 99].reset_index(drop=True)
    pd.testing.assert_frame_equal(other_rows[numbers], without[numbers], rtol=1e-4)
    assert other_rows.ended.isna().all()
    assert (best["trial"], best["epoch"]) == (best_without["trial"], best_without["epoch"])


@pytest.mark.parametrize("method", GRIDS)
def test_fit_on_embeddings_says_so_if_all_trials_diverge(method, small_task, tmp_path):
    diverging, lines = [{**GRIDS[method][0], "learning_rate": 1e38}], []
    rows, best = fit(method, small_task, tmp_path, diverging, lines.append)
    assert best["diverged"] is True and list(rows.ended) == ["diverged"]
    assert f"every trial diverged: lower methods.{method}.learning_rate" in lines[-1]


def test_make_adapter_stacks_refuses_a_reduction_that_leaves_no_unit(small_task, tmp_path):
    message = r"methods\.clip_adapter\.reduction: 129 is more than the 128 dimensions"
    with pytest.raises(ForetuneError, match=message):
        fit("clip_adapter", small_task, tmp_path, grid(learning_rate=[0.1], reduction=[4, 129]))


def test_fit_on_embeddings_refuses_features_of_another_kind(small_task, tmp_path):
    message = r"train\.parquet: made from another kind \('images', expected 'pooled'\); delete it"
    with pytest.raises(ForetuneError, match=message):
        fit("linear_probe", small_task, tmp_path, GRIDS["linear_probe"], features="pooled")


def test_fit_on_embeddings_refuses_captions_without_a_logit_scale(small_task, tmp_path):
    model, _, _ = load_model(CLIP_MINI)
    for name in ("text", "own_text"):
        metadata = read_metadata(small_task / f"embeddings/{name}.parquet")
        assert metadata["logit_scale"] == model.logit_scale.exp().item()
    older = tmp_path / "task"
    (older / "embeddings").mkdir(parents=True)
    (older / "dataset").symlink_to(small_task / "dataset")
    for name in ("train", "val"):
        (older / f"embeddings/{name}.parquet").symlink_to(small_task / f"embeddings/{name}.parquet")
    table = pq.read_table(small_task / "embeddings/text.parquet")
    del metadata["logit_scale"]
    write_parquet(table, older / "embeddings/text.parquet", metadata)
    with pytest.raises(ForetuneError, match=r"text\.parquet: has no logit_scale; delete it"):
        fit("clip_adapter", older, tmp_path / "out", GRIDS["clip_adapter"])
