import json

import numpy as np
import pandas as pd
import pytest
from conftest import CLIP_MINI
from safetensors.torch import save_file
from scipy import stats

from foretune.analyze import correlate, gain_over_zero_shot_error, join_outcomes, summarize_tasks
from foretune.evaluate import evaluate_zero_shot
from foretune.evaluate_model import evaluate_model
from foretune.files import ForetuneError, digest_file
from foretune.models import load_model


@pytest.fixture
def untuned(tmp_path):
    """A selection whose delta is the base model's own weights."""
    model, _, _ = load_model(CLIP_MINI)
    save_file(dict(model.named_parameters()), tmp_path / "delta.safetensors")
    run = {
        "model": "clip_mini", "method": "full", "dataset": "mnist",
        "delta": str(tmp_path / "delta.safetensors"),
        "sha256": digest_file(tmp_path / "delta.safetensors"),
    }  # fmt: skip
    (tmp_path / "best.json").write_text(json.dumps(run))
    return tmp_path / "best.json"


def evaluate(best, small_task, tmp_path, code="c", lines=None):
    evaluate_model(
        best, CLIP_MINI, [small_task / "dataset"], [small_task / "embeddings/text.parquet"],
        tmp_path / "predictions", code, tmp_path / "rows.parquet",
        (lines if lines is not None else []).append,
    )  # fmt: skip
    return pd.read_parquet(tmp_path / "rows.parquet").iloc[0]


def test_pixels_and_caches_give_the_same_zero_shot_accuracy(untuned, small_task, tmp_path):
    evaluate_zero_shot(
        "clip_mini", small_task / "dataset", small_task / "embeddings", tmp_path / "zero.parquet"
    )
    zero_shot = pd.read_parquet(tmp_path / "zero.parquet").iloc[0]
    assert zero_shot.method == "zero_shot" and pd.isna(zero_shot.trained_on)
    row = evaluate(untuned, small_task, tmp_path)
    assert row.accuracy == zero_shot.accuracy and row.n == 50 and row.chance == 0.1


def test_predictions_are_made_once_for_each_checkpoint_and_code(untuned, small_task, tmp_path):
    lines: list = []
    evaluate(untuned, small_task, tmp_path, lines=lines)
    assert sum("prepared" in line for line in lines) == 1
    evaluate(untuned, small_task, tmp_path, lines=lines)
    assert sum("prepared" in line for line in lines) == 1
    evaluate(untuned, small_task, tmp_path, code="other", lines=lines)
    assert sum("prepared" in line for line in lines) == 2


def test_weights_that_were_not_selected_are_refused(untuned, small_task, tmp_path):
    (tmp_path / "delta.safetensors").write_bytes(b"other")
    with pytest.raises(ForetuneError, match=r"delta\.safetensors: not the weights"):
        evaluate(untuned, small_task, tmp_path)


def evaluations():
    rows = [("zero_shot", None, "a", 0.5), ("zero_shot", None, "b", 0.8),
            ("full", "a", "a", 0.9), ("full", "a", "b", 0.6),
            ("full", "b", "b", 0.7), ("full", "b", "a", 0.6),
            ("linear_probe", "a", "a", 0.7)]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["method", "trained_on", "evaluated_on", "accuracy"])
    return frame.assign(model="m", split="test", n=10, chance=0.5)


def test_gain_and_forgetting_by_hand():
    runs = [("full", "a"), ("full", "b"), ("linear_probe", "a")]
    selected = pd.DataFrame(runs, columns=["method", "dataset"]).assign(model="m", val_accuracy=1)
    measures = pd.DataFrame({"model": "m", "dataset": ["a", "b"], "iimm": [0.2, 0.1]})
    tasks = summarize_tasks(join_outcomes(evaluations()), selected, measures)
    tasks = tasks.set_index(["method", "dataset"])
    gain = tasks.gain_over_zero_shot_error
    assert gain["full", "a"] == pytest.approx(0.4 / 0.5)
    assert gain["full", "b"] == pytest.approx(-0.1 / 0.2)
    assert gain["linear_probe", "a"] == pytest.approx(0.2 / 0.5)
    assert tasks.ood_change["full", "a"] == pytest.approx(0.6 - 0.8)
    assert tasks.ood_change["full", "b"] == pytest.approx(0.6 - 0.5)
    assert np.isnan(tasks.ood_change["linear_probe", "a"])
    assert tasks.iimm["full", "b"] == 0.1


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
