"""Tests of fine-tuning jobs: their numbers, resuming, searches, and errors."""

import json
import os
import shutil
import signal
import time

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import forked
import recipes
from checkout import CLIP_MINI
from foretune.core.errors import ForetuneError
from foretune.encoders.encode import encode_captions, encode_images
from foretune.encoders.loading import load_model
from foretune.encoders.zero_shot import predict_classes
from foretune.training.finetune import finetune
from foretune.training.methods import apply_trained_weights
from foretune.training.trainer import Trainer
from foretune.training.trials import JobSpec, list_rungs

pytestmark = pytest.mark.long

RUN = {"model": "clip_mini", "method": "full", "dataset": "mnist"}
RECIPE = recipes.RECIPE | {"schedule": "cosine", "warmup_epochs": 0.5}
TRIALS = [
    {"trial": 0, "learning_rate": 0.05, "weight_decay": 1e-4},
    {"trial": 1, "learning_rate": 0.01, "weight_decay": 1e-4},
]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)  # as Snakemake gives a job; the numbers depend on it


def tune(task, output, recipe=RECIPE, trials=TRIALS, log=lambda line: None, method="full"):
    job = JobSpec({**RUN, "method": method}, recipe, trials, 0, task / "dataset", output)
    finetune(job, CLIP_MINI, task / "embeddings/text.parquet", task / "prepared", log)
    return read_results(output)


def read_results(output):
    """Return a job's epochs, without their speed, and its selection."""
    epochs = pd.read_parquet(output / "epochs.parquet").drop(columns="images_per_second")
    best = json.loads((output / "best.json").read_text())
    return epochs, {k: v for k, v in best.items() if k != "trained_weights"}


def assert_same(one, other):
    pd.testing.assert_frame_equal(one[0], other[0], check_exact=True)
    assert one[1] == other[1]  # this includes the sha256 of the weights


@pytest.fixture(scope="module")
def unbroken(small_task, tmp_path_factory):
    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("unbroken")
    return tune(small_task, output), output


def test_finetune_writes_a_row_per_epoch_of_each_trial(unbroken):
    epochs, best = unbroken[0]
    assert list(zip(epochs.trial, epochs.epoch, strict=True)) == [
        (t, e) for t in (0, 1) for e in (1, 2)
    ]
    row = epochs[(epochs.trial == best["trial"]) & (epochs.epoch == best["epoch"])].iloc[0]
    assert row.val_accuracy == best["val_accuracy"] == epochs.val_accuracy.max()
    assert best["learning_rate"] == TRIALS[best["trial"]]["learning_rate"]
    assert epochs.groupby("trial").loss.last().max() < epochs.groupby("trial").loss.first().min()


def test_finetune_full_trains_every_tensor_and_writes_what_was_validated(unbroken, small_task):
    (_, best), output = unbroken
    trained_weights = load_file(output / "trained_weights.safetensors")
    model, preprocess, tokenizer = load_model(CLIP_MINI)
    before = dict(model.named_parameters())
    assert trained_weights.keys() == before.keys()
    unmoved = [name for name in trained_weights if torch.equal(trained_weights[name], before[name])]
    assert unmoved == []
    job = JobSpec(RUN, RECIPE, TRIALS, 0, small_task / "dataset", output)
    text_cache = small_task / "embeddings/text.parquet"
    trainer = Trainer(job, CLIP_MINI, text_cache, log=lambda line: None)
    apply_trained_weights(model, output / "trained_weights.safetensors")
    images = encode_images(model, preprocess, trainer.images["val"])
    predicted = predict_classes(images, encode_captions(model, tokenizer, trainer.captions))
    assert (predicted == trainer.labels["val"]).double().mean().item() == best["val_accuracy"]


def test_finetune_does_not_read_the_test_split(unbroken, small_task, tmp_path):
    shutil.copytree(small_task / "dataset", tmp_path / "dataset")
    shutil.copytree(small_task / "embeddings", tmp_path / "embeddings")
    (tmp_path / "dataset/test.parquet").unlink()
    (tmp_path / "embeddings/test.parquet").unlink()
    assert_same(tune(tmp_path, tmp_path / "job"), unbroken[0])


@pytest.mark.parametrize("epochs_before", [1, 2, 3])
def test_finetune_resumes_an_interrupted_run_to_the_same_numbers(
    unbroken, small_task, tmp_path, epochs_before
):
    lines = []

    def interrupt(line):
        lines.append(line)
        if sum("epoch" in line for line in lines) == epochs_before:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(small_task, tmp_path, log=interrupt)
    assert not (tmp_path / "best.json").exists()
    resumed = []
    assert_same(tune(small_task, tmp_path, log=resumed.append), unbroken[0])
    assert sum("epoch" in line for line in resumed) == 4 - epochs_before


def test_finetune_resumes_after_sigkill_to_the_same_numbers(unbroken, small_task, tmp_path):
    process = forked.Process(target=tune, args=(small_task, tmp_path))
    process.start()
    while not (tmp_path / "state/journal.json").exists() and process.is_alive():
        time.sleep(0.005)
    # At once, while further epochs are left, so that a fast machine does not end before it.
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "it ended before it could be killed"
    lines = []
    assert_same(tune(small_task, tmp_path, log=lines.append), unbroken[0])
    assert sum("epoch" in line for line in lines) < 4, "it started over"


def count_epochs(journal) -> int:
    if not journal.exists():
        return 0
    return sum(map(len, json.loads(journal.read_text())["rows"].values()))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora", "clip_lora", "flyp", "lp_ft"])
def test_finetune_gives_the_same_numbers_after_kills_at_random_moments(
    method, small_task, tmp_path
):
    """Ten kills per method; the children are forked, so that none waits for torch's import."""
    recipe = {**RECIPE, "projections": "qv", "alpha": 8, "batch_size": 64}
    recipe |= {"dropout": 0.5} if method == "clip_lora" else {}
    if method == "lp_ft":
        recipe |= {"towers": "image", "probe": {"learning_rate": [1.0], "epochs": 2}}
    recipe["augmentation"] = {"crop": 0.7, "flip": True}
    trials = [{**trial, **({"rank": 2} if "lora" in method else {})} for trial in TRIALS]
    started = time.monotonic()
    expected = tune(small_task, tmp_path / "unbroken", recipe, trials, method=method)
    epoch_seconds = (time.monotonic() - started) / 4
    rng, resumed = np.random.default_rng(0), 0
    for number, finished in enumerate(rng.integers(0, 4, 10)):
        output = tmp_path / str(number)
        child = os.fork()
        if child == 0:
            tune(small_task, output, recipe, trials, method=method)
            os._exit(0)
        alive = os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT  # looks without reaping
        while count_epochs(output / "state/journal.json") < finished and os.waitid(*alive) is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, epoch_seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        resumed += (output / "state/journal.json").exists()
        assert_same(tune(small_task, output, recipe, trials, method=method), expected)
        assert not list(output.glob("state/*.pt"))
    assert resumed >= 5


def test_finetune_trains_only_what_a_grown_grid_adds(unbroken, small_task, tmp_path):
    tune(small_task, tmp_path, trials=TRIALS[1:])
    lines = []
    grown = tune(small_task, tmp_path, log=lines.append)
    assert sum("epoch" in line for line in lines) == 2
    assert_same(grown, unbroken[0])


def test_finetune_ignores_a_state_of_another_recipe(unbroken, small_task, tmp_path):
    tune(small_task, tmp_path, recipe={**RECIPE, "epochs": 1, "batch_size": 64})
    lines = []
    assert_same(tune(small_task, tmp_path, log=lines.append), unbroken[0])
    assert any("made from another config" in line for line in lines)


def test_finetune_ignores_a_state_of_other_code(unbroken, small_task, tmp_path, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr("foretune.training.finetune.code_digest", lambda module: "older")
        tune(small_task, tmp_path, trials=TRIALS[:1])
    lines = []
    assert_same(tune(small_task, tmp_path, log=lines.append), unbroken[0])
    assert any("made from another config, data or code" in line for line in lines)


# A first step with a rate of 1e30 overflows float32 on any processor.
UNSTABLE = {**RECIPE, "warmup_epochs": 0, "clip_norm": 1e9}


def test_finetune_says_so_if_all_trials_diverge(small_task, tmp_path):
    trials, lines = [{"trial": 0, "learning_rate": 1e30, "weight_decay": 0.0}], []
    epochs, best = tune(small_task, tmp_path, UNSTABLE, trials, lines.append)
    assert best["diverged"] is True and list(epochs.ended) == ["diverged"]
    assert load_file(tmp_path / "trained_weights.safetensors") == {}
    assert lines[-1] == "mnist: every trial diverged: lower methods.full.learning_rate"
    # A kept state gives the same result.
    assert tune(small_task, tmp_path, UNSTABLE, trials)[1] == best


def test_finetune_ends_a_trial_that_diverges_and_does_not_select_it(small_task, tmp_path):
    trials, lines = [{**TRIALS[1], "trial": 1}, {**TRIALS[1], "trial": 0}], []
    trials[1]["learning_rate"] = 1e30
    epochs, best = tune(small_task, tmp_path, UNSTABLE, trials, lines.append)
    assert best["trial"] == 1
    assert list(epochs[epochs.trial == 0].ended) == ["diverged"]
    assert epochs[epochs.trial == 1].ended.isna().all() and len(epochs) == 3
    assert any("learning_rate 1e+30" in line and "never selected" in line for line in lines)


def test_finetune_sets_a_damaged_state_aside(unbroken, small_task, tmp_path):
    def interrupt(line):
        if "epoch 1/2" in line:
            raise KeyboardInterrupt

    for name in ("*.pt", "*.safetensors", "journal.json"):
        output, lines = tmp_path / name.strip("*."), []
        with pytest.raises(KeyboardInterrupt):
            tune(small_task, output, log=interrupt)
        (state,) = output.glob(f"state/{name}")
        state.write_bytes(state.read_bytes()[:50])
        assert_same(tune(small_task, output, log=lines.append), unbroken[0])
        assert any(f"{state.name} cannot be read" in line for line in lines)
        assert (output / f"state/{state.name}.damaged").stat().st_size == 50


def test_halving_drops_trials_and_gives_the_others_the_numbers_of_the_grid(small_task, tmp_path):
    recipe = {**RECIPE, "epochs": 4, "towers": "image"}
    rates = [0.05, 0.02, 1e-5, 1e-6]
    trials = [{"trial": i, "learning_rate": r, "weight_decay": 0.0} for i, r in enumerate(rates)]
    halving = {**recipe, "search": {"kind": "halving", "eta": 2, "rungs": 3}}
    assert list_rungs(halving) == [1, 2, 4] and list_rungs(recipe) == [4]
    halved, best = tune(small_task, tmp_path / "halved", halving, trials)
    grid, grid_best = tune(small_task, tmp_path / "grid", recipe, trials)
    assert sorted(halved.groupby("trial").size()) == [1, 1, 2, 4]
    assert sorted(halved.groupby("trial").ended.last().fillna("")) == ["", *["halved"] * 3]
    both = halved.drop(columns="ended").merge(grid.drop(columns="ended"))
    assert len(both) == len(halved)  # every number equals the grid's
    assert best["trial"] == halved.groupby("trial").size().idxmax()
    # A grid search on the same state ends as if there had been no halving before.
    assert_same(tune(small_task, tmp_path / "halved", recipe, trials), (grid, grid_best))


def test_patience_ends_a_trial_without_progress(small_task, tmp_path):
    trials = [{"trial": 0, "learning_rate": 1e-12, "weight_decay": 0.0}]
    epochs, best = tune(small_task, tmp_path, {**RECIPE, "epochs": 3, "patience": 1}, trials)
    assert list(epochs.ended.fillna("")) == ["", "early"] and best["epoch"] == 1


def test_finetune_suggests_a_batch_size_that_fits_the_gpu(small_task, tmp_path, monkeypatch):
    original = Trainer.loss

    def loss(self, images, labels, rows):
        if len(images) > 9:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return original(self, images, labels, rows)

    monkeypatch.setattr(Trainer, "loss", loss)
    with pytest.raises(ForetuneError, match=r"full\.batch_size: 32 images .* 8 do: set it to 8"):
        tune(small_task, tmp_path)


@pytest.mark.parametrize(("towers", "frozen"), [("image", "encode_text"), ("text", "encode_image")])
def test_finetune_runs_a_frozen_tower_once(towers, frozen, small_task, tmp_path, monkeypatch):
    calls, model_class = {"encode_text": 0, "encode_image": 0}, type(load_model(CLIP_MINI)[0])
    for name in calls:
        original = getattr(model_class, name)

        def count(self, batch, *args, name=name, original=original, **kwargs):
            calls[name] += len(batch) if name == "encode_image" else 1
            return original(self, batch, *args, **kwargs)

        monkeypatch.setattr(model_class, name, count)
    epochs, _ = tune(small_task, tmp_path, {**RECIPE, "towers": towers}, TRIALS[:1])
    images = 90 + 10  # in the training and the validation split
    assert calls[frozen] == (images if frozen == "encode_image" else 1)
    trained_weights = load_file(tmp_path / "trained_weights.safetensors")
    visual = {name for name in trained_weights if name.startswith("visual.")}
    assert (len(visual) > 0) == (towers == "image")
    assert epochs.loss.is_monotonic_decreasing


def test_finetune_with_mixed_precision_and_label_smoothing(unbroken, small_task, tmp_path):
    epochs, _ = tune(small_task, tmp_path / "bf16", {**RECIPE, "precision": "bf16"}, TRIALS[:1])
    exact = unbroken[0][0].query("trial == 0").loss
    # bfloat16 has 8 significant bits, and processors sum it in different precision.
    np.testing.assert_allclose(epochs.loss, exact, rtol=0.2)
    assert (epochs.loss.to_numpy() != exact.to_numpy()).all()
    smooth, _ = tune(small_task, tmp_path / "ls", {**RECIPE, "label_smoothing": 0.2}, TRIALS[:1])
    assert (smooth.loss.to_numpy() > exact.to_numpy()).all()
