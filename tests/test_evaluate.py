import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CLIP_MINI
from safetensors.torch import save_file
from scipy import stats

from foretune.analyze import correlate, gain_over_zero_shot_error, join_outcomes, summarize_tasks
from foretune.embeddings import read_embeddings
from foretune.evaluate import evaluate_probe, evaluate_zero_shot
from foretune.evaluate_model import evaluate_model
from foretune.files import ForetuneError, digest_file
from foretune.models import load_model


@pytest.fixture
def untuned(tmp_path):
    """A selection whose delta is the base model's own weights."""
    model, _, _ = load_model(CLIP_MINI)
    weights = {name: tensor.contiguous() for name, tensor in model.named_parameters()}
    save_file(weights, tmp_path / "delta.safetensors")
    run = {
        "model": "clip_mini", "method": "full", "dataset": "mnist",
        "delta": str(tmp_path / "delta.safetensors"),
        "sha256": digest_file(tmp_path / "delta.safetensors"),
    }  # fmt: skip
    (tmp_path / "best.json").write_text(json.dumps(run))
    return tmp_path / "best.json"


def both_tests(small_task):
    """Folders, images' caches and captions' caches of the two tests: its own and the shifted."""
    names = ("", "shifted/few")
    images = [small_task / "embeddings" / name / "test.parquet" for name in names]
    texts = [small_task / "embeddings/text.parquet"] * 2
    return [small_task / "dataset" / name for name in names], images, texts


def evaluate(selections, small_task, tmp_path, code="c", lines=None):
    tests, _, texts = both_tests(small_task)
    evaluate_model(
        selections, CLIP_MINI, tests, texts, tmp_path / "predictions", code,
        tmp_path / "rows.parquet", (lines if lines is not None else []).append,
    )  # fmt: skip
    return pd.read_parquet(tmp_path / "rows.parquet")


def test_pixels_and_caches_give_the_same_zero_shot_accuracy(untuned, small_task, tmp_path):
    evaluate_zero_shot("clip_mini", *both_tests(small_task), tmp_path / "zero.parquet")
    zero_shot = pd.read_parquet(tmp_path / "zero.parquet")
    assert set(zero_shot.method) == {"zero_shot"} and zero_shot.trained_on.isna().all()
    rows = evaluate([untuned], small_task, tmp_path)
    assert list(rows.accuracy) == list(zero_shot.accuracy)
    assert list(rows.split) == ["test", "few"] and list(rows.n) == [50, 10]
    assert set(rows.evaluated_on) == {"mnist"} and set(rows.chance) == {0.1}
    assert rows.test_digest.nunique() == 2


def test_predictions_are_made_once_for_each_checkpoint_and_code(untuned, small_task, tmp_path):
    lines: list = []

    def prepared(**changes):
        evaluate([untuned], small_task, tmp_path, lines=lines, **changes)
        return sum("prepared" in line for line in lines)

    assert [prepared(), prepared(), prepared(code="other")] == [2, 2, 4]


def test_images_are_prepared_once_for_all_checkpoints(untuned, small_task, tmp_path):
    model, _, _ = load_model(CLIP_MINI)
    # Trained weights of two layers; a checkpoint must not keep those of the one before it.
    names = ("visual.proj", "text_projection")
    selections = []
    for number, name in enumerate(names):
        torch.manual_seed(number)
        delta = tmp_path / f"{number}.safetensors"
        save_file({name: torch.randn_like(model.get_parameter(name))}, delta)
        run = json.loads(untuned.read_text()) | {
            "dataset": f"task{number}", "delta": str(delta), "sha256": digest_file(delta)
        }  # fmt: skip
        selections.append(tmp_path / f"{number}.json")
        selections[-1].write_text(json.dumps(run))
    lines: list = []
    together = evaluate([*selections, untuned], small_task, tmp_path, lines=lines)
    assert sum("prepared" in line for line in lines) == 2
    assert len(list((tmp_path / "predictions").iterdir())) == 6
    for selection in (*selections, untuned):
        alone = evaluate([selection], small_task, tmp_path, code="alone")
        same = together[together.trained_on == alone.trained_on[0]]
        pd.testing.assert_frame_equal(alone, same.reset_index(drop=True), check_exact=True)


def test_a_probe_is_tested_on_its_own_shifted_tests(small_task, tmp_path):
    tests, images, _ = both_tests(small_task)
    weight = np.zeros((read_embeddings(images[0]).vectors.shape[1], 10), np.float32)
    bias = np.eye(10, dtype=np.float32)[7]  # says "7" to everything
    save_file(
        {"weight": torch.tensor(weight), "bias": torch.tensor(bias)}, tmp_path / "delta.safetensors"
    )
    run = {
        "model": "clip_mini", "method": "linear_probe", "dataset": "mnist",
        "delta": str(tmp_path / "delta.safetensors"),
        "sha256": digest_file(tmp_path / "delta.safetensors"),
    }  # fmt: skip
    (tmp_path / "best.json").write_text(json.dumps(run))
    evaluate_probe([tmp_path / "best.json"], tests, images, tmp_path / "rows.parquet")
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert list(rows.split) == ["test", "few"] and set(rows.trained_on) == {"mnist"}
    sevens = [(read_embeddings(path).columns["label"] == 7).mean() for path in images]
    assert list(rows.accuracy) == sevens


def test_captions_of_another_version_of_the_dataset_are_refused(small_task, tmp_path):
    test = tmp_path / "few"
    shutil.copytree(small_task / "dataset/shifted/few", test)
    manifest = json.loads((test / "dataset.json").read_text()) | {"parent": "older"}
    (test / "dataset.json").write_text(json.dumps(manifest))
    _, images, texts = both_tests(small_task)
    with pytest.raises(ForetuneError, match=r"text\.parquet: made from another dataset"):
        evaluate_zero_shot("clip_mini", [test], images[1:], texts[1:], tmp_path / "rows.parquet")


def test_weights_that_were_not_selected_are_refused(untuned, small_task, tmp_path):
    (tmp_path / "delta.safetensors").write_bytes(b"other")
    with pytest.raises(ForetuneError, match=r"delta\.safetensors: not the weights"):
        evaluate([untuned], small_task, tmp_path)


def test_weights_that_the_model_lacks_are_refused(untuned, small_task, tmp_path):
    delta = tmp_path / "delta.safetensors"
    save_file({"visual.nothing": torch.zeros(1)}, delta)
    run = json.loads(untuned.read_text()) | {"sha256": digest_file(delta)}
    untuned.write_text(json.dumps(run))
    with pytest.raises(ForetuneError, match=r"delta\.safetensors: weights that the model lacks"):
        evaluate([untuned], small_task, tmp_path)


def evaluations():
    rows = [("zero_shot", None, "a", 0.5), ("zero_shot", None, "b", 0.8),
            ("full", "a", "a", 0.9), ("full", "a", "b", 0.6),
            ("full", "b", "b", 0.7), ("full", "b", "a", 0.6),
            ("linear_probe", "a", "a", 0.7)]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["method", "trained_on", "evaluated_on", "accuracy"])
    digests = "test of " + frame.evaluated_on
    return frame.assign(model="m", split="test", n=10, chance=0.5, test_digest=digests)


def tasks_of(frame):
    """The tasks of evaluations, indexed by method and dataset."""
    runs = frame[frame.method != "zero_shot"][["method", "trained_on"]].drop_duplicates()
    selected = runs.rename(columns={"trained_on": "dataset"}).assign(model="m", val_accuracy=1)
    measures = pd.DataFrame({"model": "m", "dataset": ["a", "b"], "iimm": [0.2, 0.1]})
    tasks = summarize_tasks(join_outcomes(frame), selected, measures)
    return tasks.set_index(["method", "dataset"])


def test_gain_and_forgetting_by_hand():
    tasks = tasks_of(evaluations())
    gain = tasks.gain_over_zero_shot_error
    assert gain["full", "a"] == pytest.approx(0.4 / 0.5)
    assert gain["full", "b"] == pytest.approx(-0.1 / 0.2)
    assert gain["linear_probe", "a"] == pytest.approx(0.2 / 0.5)
    assert tasks.ood_change["full", "a"] == pytest.approx(0.6 - 0.8)
    assert tasks.ood_change["full", "b"] == pytest.approx(0.6 - 0.5)
    assert np.isnan(tasks.ood_change["linear_probe", "a"])
    assert tasks.iimm["full", "b"] == 0.1
    assert tasks.shifted_change.isna().all()


def shifted_evaluations():
    """As above, and a has two shifted tests: `same` is b's test, `other` is of other images."""
    rows = [("zero_shot", None, "same", 0.7), ("zero_shot", None, "other", 0.2),
            ("full", "a", "same", 0.75), ("full", "a", "other", 0.1), ("full", "b", "same", 0.7),
            ("full", "b", "other", 0.9), ("linear_probe", "a", "same", 0.8),
            ("linear_probe", "a", "other", 0.2)]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["method", "trained_on", "split", "accuracy"])
    digests = frame.split.map({"same": "test of b", "other": "of other"})
    frame = frame.assign(model="m", evaluated_on="a", n=10, chance=0.5, test_digest=digests)
    return pd.concat([evaluations(), frame], ignore_index=True)


def test_shifted_change_by_hand_and_what_forgetting_leaves_out():
    frame = shifted_evaluations()
    tasks = tasks_of(frame)
    assert tasks.shifted_change["full", "a"] == pytest.approx((0.05 - 0.1) / 2)
    assert tasks.shifted_change["linear_probe", "a"] == pytest.approx((0.1 + 0) / 2)
    assert np.isnan(tasks.shifted_change["full", "b"])
    # b's test is a shifted test of a, so that neither is another task to the other.
    assert np.isnan(tasks.ood_change["full", "a"]) and np.isnan(tasks.ood_change["full", "b"])
    assert tasks.accuracy["full", "a"] == 0.9 and len(tasks) == 3
    # It is the images that count, not the names.
    frame.loc[frame.split == "same", "test_digest"] = "of others still"
    tasks = tasks_of(frame)
    assert tasks.ood_change["full", "a"] == pytest.approx(0.6 - 0.8)
    assert tasks.ood_change["full", "b"] == pytest.approx(0.6 - 0.5)


def test_gain_without_zero_shot_error_is_undefined():
    assert np.isnan(gain_over_zero_shot_error(np.array([0.9]), np.array([1.0])))


def test_correlation_agrees_with_scipy():
    rng = np.random.default_rng(0)
    x = rng.normal(size=7)
    y = x + rng.normal(size=7)
    result = correlate(x, y, seed=0)
    assert result["spearman"] == pytest.approx(stats.spearmanr(x, y).statistic)
    assert result["p_asymptotic"] == pytest.approx(stats.spearmanr(x, y).pvalue)
    fit = stats.linregress(x, y)
    assert (result["slope"], result["intercept"]) == pytest.approx((fit.slope, fit.intercept))
    assert result["r2"] == pytest.approx(fit.rvalue**2)
    exact = stats.permutation_test(
        (x,), lambda order: stats.spearmanr(order, y).statistic,
        permutation_type="pairings", n_resamples=10_000,
    )  # fmt: skip
    assert result["p_permutation"] == pytest.approx(exact.pvalue)


def test_three_datasets_are_said_to_be_three():
    result = correlate(np.array([1.0, 2, 3]), np.array([1.0, 2, 3.5]), seed=0)
    assert result["spearman"] == pytest.approx(1)
    assert result["p_permutation"] == pytest.approx(2 / 6) and result["p_asymptotic"] is None
    assert "n = 3" in result["note"] and "nothing here is significant" in result["note"]


@pytest.mark.parametrize(
    ("x", "y", "note"),
    [
        ([1.0, 2.0], [1.0, 2.0], "n = 2: too few"),
        ([1.0, 2.0, np.nan], [1.0, 2.0, 3.0], "n = 2: too few"),
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], "the same for every dataset"),
    ],
)
def test_no_correlation_is_said_not_computed(x, y, note):
    result = correlate(np.array(x), np.array(y), seed=0)
    assert result["spearman"] is None and note in result["note"]
