"""Correlations and fits against scipy and statsmodels, and where they have no answer."""

import json
import time

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from scipy import stats

from foretune.analyze import write_statistics
from foretune.correlations import bootstrap, correlate, interval, resamples
from foretune.fits import fit_hinge, fit_line, fit_pooled, thresholds
from foretune.paper import OTHER, SAME, as_markdown, paper_tables, pooled_line, which_study
from foretune.statistics import DIFFERENCES, STATISTICS, pooled_fits, strength, study_statistics

GAIN = "gain_over_zero_shot_error"


def points(n, seed=0, ties=True):
    """x (3, n) and y (2, n), with ties or without."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(3, n)), rng.normal(size=(2, n))
    y[0] += x[0]
    return (x.round(), y.round(1)) if ties else (x, y)


@pytest.mark.parametrize("ties", [True, False])
def test_correlations_agree_with_scipy(ties):
    x, y = points(6, ties=ties)
    found = correlate(x, y, seed=0)
    for k, m in np.ndindex(2, 3):
        rho, tau = stats.spearmanr(x[m], y[k]), stats.kendalltau(x[m], y[k], method="asymptotic")
        assert found["spearman"][k, m] == pytest.approx(rho.statistic)
        assert found["p_asymptotic"][k, m] == pytest.approx(rho.pvalue)
        assert found["kendall"][k, m] == pytest.approx(tau.statistic)
        assert found["p_kendall_asymptotic"][k, m] == pytest.approx(tau.pvalue)
        for name, statistic in [
            ("p_permutation", lambda order, k=k: stats.spearmanr(order, y[k]).statistic),
            ("p_kendall_permutation", lambda order, k=k: stats.kendalltau(order, y[k]).statistic),
        ]:
            exact = stats.permutation_test(
                (x[m],), statistic, permutation_type="pairings", n_resamples=720
            )
            assert found[name][k, m] == pytest.approx(exact.pvalue)
        if not ties:
            exact = stats.kendalltau(x[m], y[k], method="exact").pvalue
            assert found["p_kendall_permutation"][k, m] == pytest.approx(exact)


def test_random_permutations_come_near_the_exact_distribution():
    x, y = points(12, ties=False)
    found = correlate(x, y, seed=0)["p_kendall_permutation"]
    exact = [[stats.kendalltau(a, b, method="exact").pvalue for a in x] for b in y]
    assert found == pytest.approx(np.array(exact), abs=0.02)
    assert (found == correlate(x, y, seed=0)["p_kendall_permutation"]).all()


def test_the_bootstrap_is_scipys_correlation_of_each_resample():
    x, y = points(6)
    drawn, rows = bootstrap(x, y, seed=3), resamples(6, 3)
    for r in range(40):
        for k, m in np.ndindex(2, 3):
            a, b = x[m, rows[r]], y[k, rows[r]]
            if np.ptp(a) == 0 or np.ptp(b) == 0:
                assert np.isnan(drawn["spearman"][r, k, m])
                continue
            assert drawn["spearman"][r, k, m] == pytest.approx(stats.spearmanr(a, b).statistic)
            assert drawn["kendall"][r, k, m] == pytest.approx(stats.kendalltau(a, b).statistic)
    found = correlate(x, y, seed=3)
    values = drawn["spearman"][:, 0, 0]
    low, high = np.quantile(values[np.isfinite(values)], [0.025, 0.975])
    assert (found["spearman_low"][0, 0], found["spearman_high"][0, 0]) == (low, high)
    assert found["bootstrap_n"][0, 0] == np.isfinite(values).sum()


def test_an_interval_of_mostly_degenerate_resamples_is_none():
    draws = np.array([[0.1, 0.1], [0.2, np.nan], [0.3, np.nan], [np.nan, np.nan]])
    low, high, used = interval(draws)
    assert low[0] == pytest.approx(0.105) and high[0] == pytest.approx(0.295)
    assert list(used) == [3, 1] and np.isnan([low[1], high[1]]).all()
    x, y = points(4, ties=False)
    assert np.isnan(correlate(x, y, seed=0)["spearman_low"]).all()  # below five datasets


def test_a_line_agrees_with_scipy_and_its_band_with_statsmodels():
    (x, *_), (y, *_) = points(9)
    found, theirs = fit_line(x, y), stats.linregress(x, y)
    assert (found["slope"], found["intercept"]) == pytest.approx((theirs.slope, theirs.intercept))
    assert found["r2"] == pytest.approx(theirs.rvalue**2)
    assert found["p_slope"] == pytest.approx(theirs.pvalue)
    fit = sm.OLS(y, sm.add_constant(x)).fit()
    at = np.array([-1.0, 0.3, 2.0])
    theirs = fit.get_prediction(sm.add_constant(at)).summary_frame(alpha=0.05)
    t, apart = stats.t.ppf(0.975, 7), (at - found["x_mean"]) ** 2 / found["x_squares"]
    half = t * found["residual_sd"] * np.sqrt(1 / 9 + apart)
    centre = found["intercept"] + found["slope"] * at
    assert list(centre + half) == pytest.approx(list(theirs.mean_ci_upper))
    half = t * found["residual_sd"] * np.sqrt(1 + 1 / 9 + apart)
    assert list(centre - half) == pytest.approx(list(theirs.obs_ci_lower))
    assert found["slope_low"] == pytest.approx(fit.conf_int()[1, 0])
    assert found["aic_line"] == pytest.approx(fit.aic)


@pytest.mark.parametrize("seed", range(8))
def test_a_hinge_is_the_best_of_all_thresholds(seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=11)
    y = np.minimum(x, 0.5) * rng.choice([-2, 2]) + rng.normal(0, 0.2, size=11)
    found = fit_hinge(x, y, fit_line(x, y)["aic_line"])
    order = np.sort(x)
    grid = np.linspace(order[1], order[-3], 2000)
    residuals = [stats.linregress(np.minimum(x, t), y) for t in grid]
    best = max(each.rvalue**2 for each in residuals)
    assert best - 1e-9 <= found["hinge_r2"] <= best + 1e-4
    fit = sm.OLS(y, sm.add_constant(np.minimum(x, found["hinge_threshold"]))).fit()
    assert found["hinge_slope"] == pytest.approx(fit.params[1])
    assert found["aic_hinge"] == pytest.approx(fit.aic + 2)
    line = sm.OLS(y, sm.add_constant(x)).fit()
    assert found["aic_difference"] == pytest.approx(fit.aic + 2 - line.aic)
    assert found["hinge_above"] >= 2


def test_a_hinge_finds_its_threshold_and_a_line_has_none():
    x = np.arange(10.0)
    bend = np.array([0, 1, -1, 1, -1, 0, 1, -1, 1, -1]) * 1e-3
    found = fit_hinge(x, 2 * np.minimum(x, 5.4) + bend, fit_line(x, 2 * np.minimum(x, 5.4))["r2"])
    assert found["hinge_threshold"] == pytest.approx(5.4, abs=0.01)
    assert found["hinge_slope"] == pytest.approx(2, abs=0.01) and found["hinge_above"] == 4
    straight = fit_line(x, 2 * x + bend)
    assert fit_hinge(x, 2 * x + bend, straight["aic_line"])["aic_difference"] > 2
    assert np.isnan(fit_hinge(x[:4], x[:4], 0)["hinge_threshold"])
    assert len(thresholds(np.array([0.0, 0, 0, 1, 1]), np.arange(5.0))) == 0


def three_models(slopes=(1, 1, 1), seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"model": np.repeat(["a", "b", "c"], 6), "x": rng.normal(size=18)})
    slope = np.repeat(slopes, 6)
    level = np.repeat([0, 5, -3], 6)
    return frame.assign(y=slope * frame.x + level + rng.normal(0, 0.2, 18))


def test_a_pooled_fit_agrees_with_statsmodels_formulas():
    frame = three_models()
    found = fit_pooled(*(frame[c].to_numpy() for c in ("x", "y", "model")))
    fit = smf.ols("y ~ C(model) + x", frame).fit()
    each = smf.ols("y ~ C(model) * x", frame).fit()
    assert found["slope"] == pytest.approx(fit.params["x"])
    assert found["p_slope"] == pytest.approx(fit.pvalues["x"])
    assert found["r2"] == pytest.approx(fit.rsquared)
    assert found["slope_low"] == pytest.approx(fit.conf_int().loc["x", 0])
    assert found["p_slopes_differ"] == pytest.approx(each.compare_f_test(fit)[1])
    assert found["p_slopes_differ"] > 0.05 and (found["n"], found["models"]) == (18, 3)
    other = fit_pooled(*(three_models((1, -1, 4))[c].to_numpy() for c in ("x", "y", "model")))
    assert other["p_slopes_differ"] < 1e-6


def test_a_model_without_a_slope_of_its_own():
    frame = three_models()
    frame.loc[frame.model == "c", "x"] = 0.5
    found = fit_pooled(*(frame[c].to_numpy() for c in ("x", "y", "model")))
    fit = smf.ols("y ~ C(model) + x", frame).fit()
    varied = {name: frame.x.where(frame.model == name, 0) for name in "ab"}
    each = smf.ols("y ~ C(model) + xa + xb", frame.assign(xa=varied["a"], xb=varied["b"])).fit()
    assert found["p_slopes_differ"] == pytest.approx(each.compare_f_test(fit)[1])


def test_a_pooled_fit_without_an_answer():
    frame = three_models()
    one = frame[frame.model == "a"]
    found = fit_pooled(*(one[c].to_numpy() for c in ("x", "y", "model")))
    assert found["n"] == 6 and np.isnan(found["slope"])
    x = frame.model.map({"a": 0.1, "b": 0.7, "c": 0.3}).to_numpy()  # it differs between models only
    found = fit_pooled(x, frame.y.to_numpy(), frame.model.to_numpy())
    assert np.isnan(found["slope"])
    nothing = np.full(18, np.nan)
    assert fit_pooled(nothing, nothing, frame.model.to_numpy())["n"] == 0


MEASURES = ["iimm", "emms", "correct_label_alignment", "silhouette_cosine"]


def made_up(n=11, models=("clip_x", "coca_x"), methods=("full", "linear_probe"), seed=0):
    """Tasks and measures: gain rises and ood_change falls with iimm; a probe has no ood_change."""
    rng = np.random.default_rng(seed)
    tasks = []
    for model in models:
        measures = rng.uniform(size=(n, 4))
        for method in methods:
            for i in range(n):
                iimm = measures[i, 0]
                tasks.append({
                    "model": model, "method": method, "dataset": f"d{i:02}",
                    "zero_shot_accuracy": 1 - measures[i, 3], "accuracy": 0.5 + 0.4 * iimm,
                    GAIN: iimm + rng.normal(0, 0.1),
                    "ood_change": np.nan if method == "linear_probe" else -iimm / 2
                    + rng.normal(0, 0.02),
                    "shifted_change": np.nan, **dict(zip(MEASURES, measures[i], strict=True)),
                })  # fmt: skip
    tasks = pd.DataFrame(tasks)
    measured = tasks.drop_duplicates(["model", "dataset"])[["model", "dataset", *MEASURES]]
    return tasks, measured


def test_the_table_has_every_cell_and_holm_is_over_its_measures():
    tasks, measured = made_up()
    table, differences = study_statistics(tasks, measured, MEASURES, seed=0)
    assert list(table.columns) == STATISTICS and list(differences.columns) == DIFFERENCES
    assert len(table) == 2 * (3 + 2) * 4 and len(differences) == 2 * (3 + 2) * 3
    assert (table.n == 11).all() and (table.note == "").all()
    own = tasks[(tasks.model == "coca_x") & (tasks.method == "full")]
    row = table[(table.model == "coca_x") & (table.method == "full") & (table.measure == "emms")
                & (table.outcome == "ood_change")].iloc[0]  # fmt: skip
    assert row.spearman == pytest.approx(stats.spearmanr(own.emms, own.ood_change).statistic)
    assert row.slope == pytest.approx(stats.linregress(own.emms, own.ood_change).slope)
    for _, group in table.groupby(["model", "method", "outcome"]):
        p = group.p_permutation.sort_values()
        holm = np.minimum(np.maximum.accumulate(p.to_numpy() * [4, 3, 2, 1]), 1)
        assert list(group.p_holm[p.index]) == pytest.approx(list(holm))


def test_differences_are_of_strengths_over_the_same_resamples():
    tasks, measured = made_up()
    _, differences = study_statistics(tasks, measured, MEASURES, seed=4)
    own = tasks[(tasks.model == "clip_x") & (tasks.method == "full")]
    rows = resamples(11, 4)
    for rival, outcome in [("emms", "ood_change"), ("silhouette_cosine", GAIN)]:
        # The authors of iimm and of emms say that they rise with gain.
        sizes = [float if name != "silhouette_cosine" and outcome == GAIN else abs
                 for name in ("iimm", rival)]  # fmt: skip
        rhos = [
            [size(stats.spearmanr(own[name].to_numpy()[r], own[outcome].to_numpy()[r]).statistic)
             for r in [np.arange(11), *rows]]
            for name, size in zip(("iimm", rival), sizes, strict=True)
        ]  # fmt: skip
        by = np.subtract(*rhos)
        key = {"model": "clip_x", "method": "full", "rival": rival, "outcome": outcome}
        row = differences[(differences[list(key)] == list(key.values())).all(axis=1)]
        assert row.difference.item() == pytest.approx(by[0])
        assert row.low.item() == pytest.approx(np.quantile(by[1:], 0.025))
        assert row.high.item() == pytest.approx(np.quantile(by[1:], 0.975))


def test_strengths_have_the_sign_that_is_promised():
    assert strength(-0.5, "emms", GAIN) == -0.5
    assert strength(-0.5, "emms", "ood_change") == 0.5
    assert strength(-0.5, "silhouette_cosine", GAIN) == 0.5
    assert strength(-0.5, "of another version", GAIN) == 0.5


def test_what_is_missing_is_said_and_the_rest_is_computed():
    tasks, measured = made_up(n=8)
    full = tasks.method == "full"
    tasks.loc[full & (tasks.model == "clip_x") & (tasks.dataset == "d00"), "emms"] = np.nan
    tasks["silhouette_cosine"] = 0.25  # tells nothing
    tasks = tasks[~(full & (tasks.model == "clip_x") & (tasks.dataset == "d01"))]  # a failed job
    table, differences = study_statistics(tasks, measured, MEASURES, seed=0)
    cells = table[(table.model == "clip_x") & (table.method == "full") & (table.outcome == GAIN)]
    cells = cells.set_index("measure")
    assert list(cells.index) == MEASURES
    assert cells.n.to_dict() == {
        "iimm": 7, "emms": 6, "correct_label_alignment": 7, "silhouette_cosine": 7
    }  # fmt: skip
    assert cells.note["iimm"] == "no value for d01"
    assert cells.note["emms"] == "no value for d00, d01"
    assert "the same for every dataset" in cells.note["silhouette_cosine"]
    assert cells.spearman.isna().to_dict()["silhouette_cosine"]
    assert cells.spearman.drop("silhouette_cosine").notna().all()
    # Holm counts the measures that could be tested.
    assert cells.p_holm.min() == pytest.approx(cells.p_permutation.min() * 3)
    # The comparison with emms is on the six datasets that emms has.
    rivals = differences[(differences.model == "clip_x") & (differences.method == "full")
                         & (differences.outcome == GAIN)].set_index("rival")  # fmt: skip
    assert rivals.n.to_dict() == {"emms": 6, "correct_label_alignment": 7}
    own = tasks[(tasks.model == "clip_x") & (tasks.method == "full") & tasks.emms.notna()]
    assert rivals.iimm["emms"] == pytest.approx(stats.spearmanr(own.iimm, own[GAIN]).statistic)


@pytest.mark.parametrize(
    ("n", "note", "computed"),
    [(1, "n = 1: too few", False), (2, "n = 2: too few", False),
     (3, "n = 3: no order of 3 datasets has an exact p-value below 0.33", True),
     (4, "nothing here is significant", True), (5, "", True)],
)  # fmt: skip
def test_few_datasets_are_said_to_be_few(n, note, computed):
    table, _ = study_statistics(*made_up(n=n), MEASURES, seed=0)
    assert all(note in each for each in table.note) and len(table) == 2 * (3 + 2) * 4
    assert table.spearman.notna().all() == computed and table.slope.notna().all() == computed
    assert table.spearman_low.notna().all() == (n >= 5)
    if n == 3:
        assert table.p_permutation.min() == pytest.approx(2 / 6)


def test_many_measures_take_seconds():
    """The default study: nine runs of twelve datasets, nineteen measures, four outcomes."""
    rng = np.random.default_rng(0)
    names = [f"m{i}" for i in range(18)]
    tasks, measured = made_up(n=12, models=list("abcdefghi"), methods=["full"])
    tasks = tasks.assign(shifted_change=rng.normal(size=108), **dict(zip(
        names, rng.normal(size=(18, 108)), strict=True)))  # fmt: skip
    started = time.process_time()
    table, _ = study_statistics(tasks, measured, ["iimm", *names], seed=0)
    assert len(table) == 9 * 19 * 4 and table.spearman.notna().all()
    assert time.process_time() - started < 20


def test_no_tasks_and_no_iimm():
    tasks, measured = made_up(n=5)
    table, differences = study_statistics(tasks.iloc[:0], measured, MEASURES, seed=0)
    assert table.empty and differences.empty and list(table.columns) == STATISTICS
    assert pooled_fits(tasks.iloc[:0], MEASURES).empty
    table, differences = study_statistics(tasks, measured, MEASURES[1:], seed=0)
    assert len(table) == 2 * (3 + 2) * 3 and differences.empty


def test_pooled_fits_are_of_methods_with_several_models():
    tasks, _ = made_up()
    probe = (tasks.method == "linear_probe") & (tasks.model == "coca_x")
    table = pooled_fits(tasks[~probe], MEASURES)
    assert set(table.method) == {"full"} and len(table) == 4 * 3
    row = table[(table.measure == "iimm") & (table.outcome == "accuracy")].iloc[0]
    assert row.slope == pytest.approx(0.4) and row.n == 22


# ---------------------------------------------------------------- the paper's tables


def paper_study():
    models = {
        "mine": {"architecture": "ViT-B-32-quickgelu", "pretrained": "openai"},
        "coca": {"architecture": "coca_ViT-B-32", "pretrained": "laion2b_s13b_b90k"},
    }
    datasets = ["cars", "cifar100", "dtd", "eurosat", "gtsrb", "mnist", "resisc45", "sun397",
                "svhn"]  # fmt: skip
    return models, datasets


def test_which_study_it_is():
    from conftest import ROOT

    paper = ROOT / "studies/paper.yaml"
    models, datasets = paper_study()
    assert which_study(models, datasets, paper) == {"mine": SAME, "coca": SAME, "all": OTHER}
    models |= {"s": {"architecture": "ViT-B-16-SigLIP", "pretrained": "webli"},
               "e": {"architecture": "EVA02-B-16", "pretrained": "merged2b_s8b_b131k"}}  # fmt: skip
    assert which_study(models, datasets, paper)["all"] == SAME
    assert set(which_study(models, datasets[1:], paper).values()) == {OTHER}
    models["mine"] = {"folder": "somewhere"}
    found = which_study(models, datasets, paper)
    assert found["mine"] == found["all"] == OTHER and found["coca"] == SAME


def test_the_papers_tables_hold_its_numbers_and_ours():
    tasks, measured = made_up()
    table, _ = study_statistics(tasks, measured, MEASURES, seed=0)
    cells = paper_tables(table, tasks, {"clip_x": OTHER, "coca_x": SAME, "all": OTHER})
    theirs, ours = cells[cells.source == "paper"], cells[cells.source == "ours"]
    assert theirs.groupby("table").size().to_dict() == {1: 20, 2: 20, 3: 12, 5: 7, 6: 20}
    cell = theirs[(theirs.table == 2) & (theirs.label == "EMMS") & (theirs.model == "SigLIP")]
    assert (cell.value.item(), cell.p.item()) == (0.71, 0.03)
    # Of the four measures: iimm and emms are in tables 1 and 2, the others in 5 and 6.
    assert ours.groupby("table").size().to_dict() == {1: 4, 2: 4, 5: 2, 6: 2}
    full = tasks[tasks.method == "full"]
    own = full[full.model == "coca_x"]
    cell = ours[(ours.table == 1) & (ours.model == "coca_x") & (ours.measure == "emms")].iloc[0]
    assert cell.value == pytest.approx(stats.spearmanr(own.emms, own[GAIN]).statistic)
    assert cell.study == SAME and cell.n == 11
    cell = ours[(ours.table == 5) & (ours.measure == "silhouette_cosine")].iloc[0]
    fit = stats.linregress(full.silhouette_cosine, full[GAIN])
    assert (cell.value, cell.p, cell.n) == pytest.approx((fit.rvalue**2, fit.pvalue, 22))
    text = as_markdown(cells)
    head = next(line for line in text.splitlines() if line.startswith("| measure"))
    assert [part.strip() for part in head.split("|")[2:-1]] == [
        "CoCa, the paper", "coca_x, this run of the paper's study", "EVA-02, the paper",
        "CLIP, the paper", "clip_x, another study", "SigLIP, the paper",
    ]  # fmt: skip
    assert "| EMMS | 0.700 (p 0.036) |" in text


def test_the_papers_tables_without_a_study():
    tasks, measured = made_up(methods=("linear_probe",))
    table, _ = study_statistics(tasks, measured, MEASURES, seed=0)
    cells = paper_tables(table, tasks, {"clip_x": OTHER, "coca_x": OTHER, "all": OTHER})
    assert not (cells.source == "ours")[cells.table != 5].any()
    assert as_markdown(cells).count("no full fine-tuning") >= 4
    assert pooled_line(tasks.iloc[:2], "iimm") == {"n": 2}


def test_the_files(tmp_path):
    tasks, measured = made_up(n=6)
    tasks.loc[0, "emms"] = np.nan
    studies = {"clip_x": OTHER, "coca_x": OTHER, "all": OTHER}
    write_statistics(tasks, measured, MEASURES, 0, studies, tmp_path)
    for name in ("statistics", "differences", "pooled", "paper_tables", "findings",
                 "findings_evidence"):  # fmt: skip
        frame = pd.read_parquet(tmp_path / f"{name}.parquet")
        assert len(frame) == len(pd.read_csv(tmp_path / f"{name}.csv")) > 0
    rows = json.loads((tmp_path / "statistics.json").read_text())  # NaN would be refused
    table = pd.read_parquet(tmp_path / "statistics.parquet")
    assert [row["n"] for row in rows] == list(table.n) and "NaN" not in json.dumps(rows)
    again = tmp_path / "again"
    write_statistics(tasks, measured, MEASURES, 0, studies, again)
    for path in again.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()
