"""The choice among candidates, its nested error, and its intervals."""

import numpy as np
import pandas as pd
import pytest

from foretune.forecast.candidates import (
    MEAN,
    OFFSET_PENALTY,
    SLOPE_PENALTY,
    Candidate,
    predict,
    predict_left_out,
)
from foretune.forecast.forecaster import ENOUGH_FOR_QUANTILES, fit_forecasters


def make_study(n=16, models=3, noise=0.02, slope=0.0, seed=0):
    """Return a study whose accuracy is that of the probe, plus slope times the zero-shot one."""
    rng, rows = np.random.default_rng(seed), []
    for dataset in range(n):
        probe, zero_shot = rng.uniform(0.5, 0.9), rng.uniform(0.1, 0.4)
        for model in range(models):
            rows.append({
                "model": f"m{model}", "method": "full", "run": f"m{model}/full", "n_test": 300,
                "dataset": f"d{dataset}", "probe_accuracy": probe, "iimm": rng.uniform(),
                "train_zero_shot_accuracy": zero_shot, "centroid_accuracy": rng.uniform(),
                "accuracy": probe + slope * (zero_shot - 0.25) + rng.normal(0, noise),
                "ood_change": -0.1 - 0.2 * zero_shot + rng.normal(0, noise),
            })  # fmt: skip
    return pd.DataFrame(rows)


LINE = Candidate(("probe_accuracy", "train_zero_shot_accuracy"))


@pytest.mark.parametrize("candidate", [MEAN, LINE, Candidate(("probe_accuracy",), itself=True)])
def test_predict_left_out_agrees_with_refitting(candidate):
    study = make_study(slope=0.5)
    units = list(study.groupby("dataset").indices.values())
    shortcut = predict_left_out(candidate, study, "accuracy", units)
    for dataset in ("d0", "d7"):
        out = (study.dataset == dataset).to_numpy()
        others = study[~out].reset_index(drop=True)
        refitted = predict(candidate, others, "accuracy", study[out])
        # The scaling and the penalty follow the number of rows, which differs by a dataset.
        assert shortcut[out] == pytest.approx(refitted, abs=0.003)


@pytest.mark.parametrize("candidate", [MEAN, LINE])
@pytest.mark.parametrize("unit", [["dataset"], ["model"], ["model", "dataset"]])
def test_predict_left_out_equals_a_ridge_with_a_column_per_run(candidate, unit):
    study = make_study(n=8, slope=0.5).sample(frac=0.9, random_state=0, ignore_index=True)
    units = list(study.groupby(unit).indices.values())
    values = study[list(candidate.predictors)].to_numpy()
    runs = pd.get_dummies(study.run).to_numpy(float)
    scaled = (values - values.mean(axis=0)) / values.std(axis=0)
    x, y = np.hstack([np.ones((len(study), 1)), scaled, runs]), study.accuracy.to_numpy()
    slopes = SLOPE_PENALTY * len(study)
    penalties = np.diag([1e-9, *[slopes] * values.shape[1], *[OFFSET_PENALTY] * runs.shape[1]])
    expected = np.empty(len(study))
    for rows in units:  # all tests are of one size, and all weights are 1
        rest = np.delete(np.arange(len(study)), rows)
        fit = np.linalg.solve(x[rest].T @ x[rest] + penalties, x[rest].T @ y[rest])
        expected[rows] = x[rows] @ fit
    assert predict_left_out(candidate, study, "accuracy", units) == pytest.approx(expected)


def test_fit_forecasters_takes_the_probe_itself_if_nothing_adds_to_it():
    forecaster = fit_forecasters(make_study(), "accuracy")["full"]
    assert str(forecaster.chosen) == "probe_accuracy itself"
    assert forecaster.error == pytest.approx(0.016, abs=0.006)  # the mean of |N(0, 0.02)|


def test_the_larger_of_a_probe_and_a_pilot_is_as_simple_as_the_probe_itself():
    both = Candidate(("hidden_probe_accuracy", "pilot_accuracy"), itself=True)
    study = make_study().assign(hidden_probe_accuracy=0.5, pilot_accuracy=0.5)
    low, high = study.index[:9], study.index[9:]
    study.loc[low, "hidden_probe_accuracy"] = study.accuracy[low]
    study.loc[high, "pilot_accuracy"] = study.accuracy[high]
    assert predict(both, study, "accuracy", study) == pytest.approx(
        np.maximum(study.accuracy, 0.5), abs=1e-9
    )
    assert both.complexity == Candidate(("probe_accuracy",), itself=True).complexity
    assert str(both) == "largest of hidden_probe_accuracy and pilot_accuracy"
    assert fit_forecasters(study, "accuracy")["full"].chosen == both


def test_fit_forecasters_takes_a_line_if_it_is_shown_to_be_better():
    forecaster = fit_forecasters(make_study(slope=1.0), "accuracy")["full"]
    assert forecaster.chosen == LINE and forecaster.error < 0.03
    assert forecaster.errors[MEAN] > 2 * forecaster.error


def test_fit_forecasters_stays_with_the_mean_if_nothing_predicts():
    chosen = []
    for seed in range(10):
        study = make_study(seed=seed)
        study["ood_change"] = np.random.default_rng(seed).normal(0, 0.1, len(study))
        chosen.append(fit_forecasters(study, "ood_change")["full"].chosen)
    assert chosen.count(MEAN) >= 8


def test_the_error_that_is_shown_did_not_choose():
    """With many useless candidates the smallest error flatters; the nested one does not."""
    flattering, nested = [], []
    for seed in range(20):
        rng, study = np.random.default_rng(seed), make_study(n=8, models=1, seed=seed)
        study["accuracy"] = rng.uniform(0.3, 0.9, len(study))
        study["probe_accuracy"] = rng.uniform(0.3, 0.9, len(study))
        forecaster = fit_forecasters(study, "accuracy")["full"]
        flattering.append(min(forecaster.errors.values()))
        nested.append(forecaster.error)
    assert np.mean(nested) > np.mean(flattering)


@pytest.mark.parametrize("n", [12, ENOUGH_FOR_QUANTILES + 5])
def test_intervals_hold_new_outcomes(n):
    held = []
    for seed in range(12):
        study = make_study(n=n + 10, models=2, noise=0.05, seed=seed)
        new = study.dataset.isin([f"d{number}" for number in range(n, n + 10)])
        forecaster = fit_forecasters(study[~new], "accuracy")["full"]
        limits = forecaster.predict(study[new])
        truth = study.accuracy[new].to_numpy()
        held.append(((limits.low <= truth) & (truth <= limits.high)).mean())
        assert (limits.low >= 0).all() and (limits.high <= 1).all()
    assert 0.9 <= np.mean(held) <= 0.995


def test_fit_forecasters_leaves_out_what_is_not_known():
    study = make_study()
    study.loc[0, "probe_accuracy"] = np.nan  # its candidates are left out
    forecaster = fit_forecasters(study, "accuracy")["full"]
    assert all("probe_accuracy" not in each.predictors for each in forecaster.errors)
    study.loc[study.dataset != "d0", "accuracy"] = np.nan
    assert fit_forecasters(study, "accuracy") == {}
