import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from checkout import CLIP_MINI, ROOT
from foretune.core.errors import ForetuneError
from foretune.encoders.encode import encode_captions, encode_images
from foretune.encoders.loading import load_model
from foretune.encoders.zero_shot import predict_classes
from foretune.training.augment import augment
from foretune.training.finetune import FineTuningJob, finetune, set_train_mode
from foretune.training.methods import apply_trained_weights
from foretune.training.optim import compute_learning_rate
from foretune.training.trials import is_better, list_rungs, select_trial

pytestmark = pytest.mark.long

RUN = {"model": "clip_mini", "method": "full", "dataset": "mnist"}
RECIPE = {
    "optimizer": "sgd", "momentum": 0.9, "epochs": 3, "batch_size": 32, "schedule": "cosine",
    "warmup_epochs": 1, "clip_norm": 1.0, "label_smoothing": 0, "towers": "both",
    "precision": "auto", "compile": False, "augmentation": {"crop": 1, "flip": False},
    "search": {"kind": "grid"},
}  # fmt: skip
TRIALS = [
    {"trial": 0, "learning_rate": 0.05, "weight_decay": 1e-4},
    {"trial": 1, "learning_rate": 0.01, "weight_decay": 1e-4},
]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)  # what Snakemake gives a job; numbers depend on it


def tune(task, output, recipe=RECIPE, trials=TRIALS, log=lambda line: None, method="full"):
    finetune(
        {**RUN, "method": method}, CLIP_MINI, task / "dataset",
        task / "embeddings/text.parquet", recipe, trials, 0, output, task / "prepared", log,
    )  # fmt: skip
    return results(output)


def results(output):
    """A job's numbers, without its speed."""
    epochs = pd.read_parquet(output / "epochs.parquet").drop(columns="images_per_second")
    best = json.loads((output / "best.json").read_text())
    return epochs, {k: v for k, v in best.items() if k != "trained_weights"}


def assert_same(one, other):
    pd.testing.assert_frame_equal(one[0], other[0], check_exact=True)
    assert one[1] == other[1]  # the sha256 of the weights is in it


@pytest.fixture(scope="module")
def unbroken(small_task, tmp_path_factory):
    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("unbroken")
    return tune(small_task, output), output


def test_every_epoch_of_every_trial_is_a_row(unbroken):
    epochs, best = unbroken[0]
    assert list(zip(epochs.trial, epochs.epoch, strict=True)) == [
        (t, e) for t in (0, 1) for e in (1, 2, 3)
    ]
    row = epochs[(epochs.trial == best["trial"]) & (epochs.epoch == best["epoch"])].iloc[0]
    assert row.val_accuracy == best["val_accuracy"] == epochs.val_accuracy.max()
    assert best["learning_rate"] == TRIALS[best["trial"]]["learning_rate"]
    assert epochs.groupby("trial").loss.last().max() < epochs.groupby("trial").loss.first().min()


def test_full_trains_every_tensor_and_the_delta_is_what_validated(unbroken, small_task):
    (_, best), output = unbroken
    trained_weights = load_file(output / "trained_weights.safetensors")
    model, preprocess, tokenizer = load_model(CLIP_MINI)
    before = dict(model.named_parameters())
    assert trained_weights.keys() == before.keys()
    unmoved = [name for name in trained_weights if torch.equal(trained_weights[name], before[name])]
    assert unmoved == []
    job = FineTuningJob(
        RUN, CLIP_MINI, small_task / "dataset", small_task / "embeddings/text.parquet", RECIPE, 0,
        output, log=lambda line: None,
    )  # fmt: skip
    apply_trained_weights(model, output / "trained_weights.safetensors")
    images = encode_images(model, preprocess, job.images["val"])
    predicted = predict_classes(images, encode_captions(model, tokenizer, job.captions))
    assert (predicted == job.labels["val"]).double().mean().item() == best["val_accuracy"]


def test_the_test_split_is_not_read(unbroken, small_task, tmp_path):
    shutil.copytree(small_task / "dataset", tmp_path / "dataset")
    shutil.copytree(small_task / "embeddings", tmp_path / "embeddings")
    (tmp_path / "dataset/test.parquet").unlink()
    (tmp_path / "embeddings/test.parquet").unlink()
    assert_same(tune(tmp_path, tmp_path / "job"), unbroken[0])


@pytest.mark.parametrize("epochs_before", [1, 3, 4])
def test_an_interrupted_run_goes_on_to_the_same_numbers(
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
    assert sum("epoch" in line for line in resumed) == 6 - epochs_before


def test_sigkill_at_any_moment_resumes_to_the_same_numbers(unbroken, small_task, tmp_path):
    command = [
        sys.executable, ROOT / "workflow_scripts/finetune.py", "--model", "clip_mini", "--method",
        "full", "--dataset-name", "mnist", "--model-spec", json.dumps(CLIP_MINI), "--recipe",
        json.dumps(RECIPE), "--trials", json.dumps(TRIALS), "--seed", "0", "--dataset",
        small_task / "dataset", "--text", small_task / "embeddings/text.parquet", "--prepared",
        tmp_path / "prepared", "--output", tmp_path / "job",
    ]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=env)
    while not (tmp_path / "job/state/journal.json").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.3)  # in the middle of an epoch, or of writing its state
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    assert done.stdout.count("epoch") < 6, "it started anew"
    assert_same(results(tmp_path / "job"), unbroken[0])


def epochs_in(journal) -> int:
    return (
        sum(map(len, json.loads(journal.read_text())["rows"].values())) if journal.exists() else 0
    )


@pytest.mark.parametrize("method", ["full", "lora"])
def test_twenty_kills_at_random_moments_change_no_number(method, small_task, tmp_path):
    """Ten a method; the children are forked, so that none waits for torch's import."""
    recipe = {**RECIPE, "projections": "qv", "alpha": 8, "batch_size": 64}
    recipe["augmentation"] = {"crop": 0.7, "flip": True}
    trials = [{**trial, **({"rank": 2} if method == "lora" else {})} for trial in TRIALS]
    started = time.monotonic()
    expected = tune(small_task, tmp_path / "unbroken", recipe, trials, method=method)
    an_epoch = (time.monotonic() - started) / 6
    draw, resumed = np.random.default_rng(0), 0
    for number, finished in enumerate(draw.integers(0, 6, 10)):
        output = tmp_path / str(number)
        child = os.fork()
        if child == 0:
            tune(small_task, output, recipe, trials, method=method)
            os._exit(0)
        alive = os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT  # a look that reaps nothing
        while epochs_in(output / "state/journal.json") < finished and os.waitid(*alive) is None:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, an_epoch))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        resumed += (output / "state/journal.json").exists()
        assert_same(tune(small_task, output, recipe, trials, method=method), expected)
        assert not list(output.glob("state/*.pt"))
    assert resumed >= 5


def test_a_grid_point_added_costs_its_own_epochs_only(unbroken, small_task, tmp_path):
    tune(small_task, tmp_path, trials=TRIALS[1:])
    lines = []
    grown = tune(small_task, tmp_path, log=lines.append)
    assert sum("epoch" in line for line in lines) == 3
    assert_same(grown, unbroken[0])


def test_a_state_of_another_recipe_is_not_used(unbroken, small_task, tmp_path):
    tune(small_task, tmp_path, recipe={**RECIPE, "batch_size": 64})
    lines = []
    assert_same(tune(small_task, tmp_path, log=lines.append), unbroken[0])
    assert any("made from another config" in line for line in lines)


def test_a_state_of_other_code_is_not_used(unbroken, small_task, tmp_path, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr("foretune.training.finetune.code_digest", lambda module: "older")
        tune(small_task, tmp_path)
    lines = []
    assert_same(tune(small_task, tmp_path, log=lines.append), unbroken[0])
    assert any("made from another config, data or code" in line for line in lines)


WILD = {**RECIPE, "warmup_epochs": 0, "clip_norm": 1e9}


def test_divergence_is_an_error_that_names_the_key(small_task, tmp_path):
    trials = [{"trial": 0, "learning_rate": 1e30, "weight_decay": 0.0}]
    with pytest.raises(ForetuneError, match=r"diverged; lower methods\.full\.learning_rate"):
        tune(small_task, tmp_path, WILD, trials)


def test_a_trial_that_diverges_ends_and_is_not_selected(small_task, tmp_path):
    trials, lines = [{**TRIALS[1], "trial": 1}, {**TRIALS[1], "trial": 0}], []
    trials[1]["learning_rate"] = 1e30
    epochs, best = tune(small_task, tmp_path, WILD, trials, lines.append)
    assert best["trial"] == 1
    assert list(epochs[epochs.trial == 0].ended) == ["diverged"]
    assert epochs[epochs.trial == 1].ended.isna().all() and len(epochs) == 4
    assert any("learning_rate 1e+30" in line and "never selected" in line for line in lines)


def test_a_state_that_cannot_be_read_is_kept_and_not_used(unbroken, small_task, tmp_path):
    def interrupt(line):
        if "epoch 2/3" in line:
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


def test_halving_drops_trials_and_gives_the_rest_the_grids_numbers(small_task, tmp_path):
    recipe = {**RECIPE, "epochs": 4}
    rates = [0.05, 0.02, 1e-5, 1e-6]
    trials = [{"trial": i, "learning_rate": r, "weight_decay": 0.0} for i, r in enumerate(rates)]
    halving = {**recipe, "search": {"kind": "halving", "eta": 2, "rungs": 3}}
    assert list_rungs(halving) == [1, 2, 4] and list_rungs(recipe) == [4]
    halved, best = tune(small_task, tmp_path / "halved", halving, trials)
    grid, grid_best = tune(small_task, tmp_path / "grid", recipe, trials)
    assert sorted(halved.groupby("trial").size()) == [1, 1, 2, 4]
    assert sorted(halved.groupby("trial").ended.last().fillna("")) == ["", *["halved"] * 3]
    both = halved.drop(columns="ended").merge(grid.drop(columns="ended"))
    assert len(both) == len(halved)  # every number is the grid's
    assert best["trial"] == halved.groupby("trial").size().idxmax()
    # The grid after it, on the same state, ends as if there had been no halving before.
    assert_same(tune(small_task, tmp_path / "halved", recipe, trials), (grid, grid_best))


def test_early_stopping_ends_a_trial_without_progress(small_task, tmp_path):
    still = [{"trial": 0, "learning_rate": 1e-12, "weight_decay": 0.0}]
    epochs, best = tune(small_task, tmp_path, {**RECIPE, "patience": 1}, still)
    assert list(epochs.ended.fillna("")) == ["", "early"] and best["epoch"] == 1


def test_out_of_gpu_memory_says_which_batch_size_fits(small_task, tmp_path, monkeypatch):
    whole = FineTuningJob.loss

    def loss(self, images, labels, rows):
        if len(images) > 9:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return whole(self, images, labels, rows)

    monkeypatch.setattr(FineTuningJob, "loss", loss)
    with pytest.raises(ForetuneError, match=r"full\.batch_size: 32 images .* 8 do: set it to 8"):
        tune(small_task, tmp_path)


@pytest.mark.parametrize(("towers", "frozen"), [("image", "encode_text"), ("text", "encode_image")])
def test_a_frozen_tower_runs_once(towers, frozen, small_task, tmp_path, monkeypatch):
    calls, trained = {"encode_text": 0, "encode_image": 0}, load_model(CLIP_MINI)[0].__class__
    for name in calls:
        real = getattr(trained, name)

        def count(self, x, *args, name=name, real=real, **kwargs):
            calls[name] += len(x) if name == "encode_image" else 1
            return real(self, x, *args, **kwargs)

        monkeypatch.setattr(trained, name, count)
    epochs, _ = tune(small_task, tmp_path, {**RECIPE, "towers": towers}, TRIALS[:1])
    images = 90 + 10  # of the training and the validation split
    assert calls[frozen] == (images if frozen == "encode_image" else 1)
    trained_weights = load_file(tmp_path / "trained_weights.safetensors")
    visual = {name for name in trained_weights if name.startswith("visual.")}
    assert (len(visual) > 0) == (towers == "image")
    assert epochs.loss.is_monotonic_decreasing


def test_mixed_precision_and_label_smoothing_train(unbroken, small_task, tmp_path):
    epochs, _ = tune(small_task, tmp_path / "bf16", {**RECIPE, "precision": "bf16"}, TRIALS[:1])
    exact = unbroken[0][0].query("trial == 0").loss
    np.testing.assert_allclose(epochs.loss, exact, rtol=0.1)
    assert (epochs.loss.to_numpy() != exact.to_numpy()).all()
    smooth, _ = tune(small_task, tmp_path / "ls", {**RECIPE, "label_smoothing": 0.2}, TRIALS[:1])
    assert (smooth.loss.to_numpy() > exact.to_numpy()).all()


def test_augmentation_crops_inside_and_mirrors():
    images = torch.arange(8.0).expand(64, 3, 8, 8)  # each column has its number
    draws = torch.rand(4, 64, generator=torch.Generator().manual_seed(0))
    assert augment(images, {"crop": 1, "flip": False}, draws) is images
    flipped = augment(images, {"crop": 1, "flip": True}, draws)
    mirrored = [torch.allclose(f, i.flip(-1)) for f, i in zip(flipped, images, strict=True)]
    kept = [torch.allclose(f, i) for f, i in zip(flipped, images, strict=True)]
    assert all(m ^ k for m, k in zip(mirrored, kept, strict=True)) and 16 < sum(mirrored) < 48
    cropped = augment(images, {"crop": 0.25, "flip": False}, draws)
    steps = (cropped[:, 0, 0, 4] - cropped[:, 0, 0, 3]).numpy()  # a crop of half a side has 0.5
    assert steps.min() > 0.49 and steps.max() < 1.01 and np.ptp(steps) > 0.3
    middles = cropped.mean(dim=(1, 2, 3)).numpy()
    assert middles.min() >= 1.4 and middles.max() <= 5.6 and np.ptp(middles) > 1


def test_batch_norms_keep_their_statistics():
    tower = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Dropout())
    set_train_mode(tower)
    tower(torch.ones(4, 2) * 9)
    assert tower[1].training and torch.equal(tower[0].running_mean, torch.zeros(2))


def test_ties_go_to_the_smaller_learning_rate_and_the_earlier_epoch(tmp_path):
    def trial(number, accuracy, rate):
        row = {"trial": number, "val_accuracy": accuracy, "learning_rate": rate}
        return row | {"weight_decay": 0.0}

    first, second = trial(0, 0.5, 0.1), trial(1, 0.5, 0.2)
    assert is_better(first, None) and is_better(first, second)
    assert not is_better(second, first) and not is_better(first, first)
    paths = []
    for part in (second, first, trial(2, 0.4, 0.01)):
        paths.append(tmp_path / f"{part['trial']}.json")
        paths[-1].write_text(json.dumps(part))
    select_trial(paths, tmp_path / "best.json")
    assert json.loads((tmp_path / "best.json").read_text()) == first


def test_learning_rate_schedule():
    recipe = {"warmup_epochs": 1, "epochs": 3, "schedule": "cosine"}
    rates = [compute_learning_rate(recipe, 1.0, step, 4) for step in range(13)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[8] == pytest.approx(0.5) and rates[12] == pytest.approx(0)
    assert compute_learning_rate({**recipe, "schedule": "constant"}, 0.3, 9, 4) == 0.3
