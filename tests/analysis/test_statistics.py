"""The tables of correlations and fits, including studies that have too little data for them."""

import json

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.tools.eval_measures import aicc

from checkout import ROOT
from foretune.analysis.outcomes import GAIN
from foretune.analysis.paper_tables import (
    OTHER,
    SAME,
    format_markdown,
    identify_paper_study,
    make_paper_tables,
    pooled_line,
)
from foretune.analysis.rank_correlation import count_resamples
from foretune.analysis.statistics import (
    DIFFERENCE_COLUMNS,
    STATISTICS_COLUMNS,
    pooled_fits,
    strength,
    study_statistics,
)
from foretune.analysis.study_tables import write_statistics
from foretune.analysis.tables import STATISTICS_TABLE_NAMES
from foretune.core.config import check_config
from foretune.core.study_file import read_study

MEASURES = ["iimm", "emms", "correct_label_alignment", "silhouette_cosine"]


def make_tasks(n=11, models=("clip_x", "coca_x"), methods=("full", "linear_probe"), seed=0):
    """Return tasks and measures. Gain rises and ood_change falls with iimm; a probe has none."""
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


def test_study_statistics_has_every_cell_and_applies_holm_over_measures():
    tasks, measured = make_tasks()
    table, differences = study_statistics(tasks, measured, MEASURES, seed=0)
    assert (
        list(table.columns) == STATISTICS_COLUMNS
        and list(differences.columns) == DIFFERENCE_COLUMNS
    )
    assert len(table) == 2 * (3 + 2) * 4 and len(differences) == 2 * (3 + 2) * 3
    assert (table.n == 11).all() and (table.note == "").all()
    run = tasks[(tasks.model == "coca_x") & (tasks.method == "full")]
    row = table[(table.model == "coca_x") & (table.method == "full") & (table.measure == "emms")
                & (table.outcome == "ood_change")].iloc[0]  # fmt: skip
    assert row.spearman == pytest.approx(stats.spearmanr(run.emms, run.ood_change).statistic)
    assert row.slope == pytest.approx(stats.linregress(run.emms, run.ood_change).slope)
    for _, group in table.groupby(["model", "method", "outcome"]):
        p = group.p_permutation.sort_values()
        holm = np.minimum(np.maximum.accumulate(p.to_numpy() * [4, 3, 2, 1]), 1)
        assert list(group.p_holm[p.index]) == pytest.approx(list(holm))


def test_study_statistics_compares_strengths_over_the_same_resamples():
    tasks, measured = make_tasks()
    _, differences = study_statistics(tasks, measured, MEASURES, seed=4)
    run = tasks[(tasks.model == "clip_x") & (tasks.method == "full")]
    rows = [
        np.repeat(np.arange(11), times) for times in count_resamples(11, 4).datasets.astype(int)
    ]
    for rival, outcome in [("emms", "ood_change"), ("silhouette_cosine", GAIN)]:
        # The authors of iimm and of emms predict that they rise with gain.
        signs = [float if name != "silhouette_cosine" and outcome == GAIN else abs
                 for name in ("iimm", rival)]  # fmt: skip
        strengths = [
            [sign(stats.spearmanr(run[name].to_numpy()[r], run[outcome].to_numpy()[r]).statistic)
             for r in [np.arange(11), *rows]]
            for name, sign in zip(("iimm", rival), signs, strict=True)
        ]  # fmt: skip
        difference = np.subtract(*strengths)
        key = {"model": "clip_x", "method": "full", "rival": rival, "outcome": outcome}
        row = differences[(differences[list(key)] == list(key.values())).all(axis=1)]
        assert row.difference.item() == pytest.approx(difference[0])
        assert row.low.item() == pytest.approx(np.quantile(difference[1:], 0.025))
        assert row.high.item() == pytest.approx(np.quantile(difference[1:], 0.975))


def test_strength_has_the_sign_that_the_authors_predict():
    assert strength(-0.5, "emms", GAIN) == -0.5
    assert strength(-0.5, "emms", "ood_change") == 0.5
    assert strength(-0.5, "silhouette_cosine", GAIN) == 0.5
    assert strength(-0.5, "measure_of_another_version", GAIN) == 0.5


def test_study_statistics_notes_missing_values_and_computes_the_rest():
    tasks, measured = make_tasks(n=8)
    full = tasks.method == "full"
    tasks.loc[full & (tasks.model == "clip_x") & (tasks.dataset == "d00"), "emms"] = np.nan
    tasks["silhouette_cosine"] = 0.25  # constant
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
    # Holm's correction counts only the measures that could be tested.
    assert cells.p_holm.min() == pytest.approx(cells.p_permutation.min() * 3)
    # IIMM is compared with emms on the six datasets that emms has.
    rivals = differences[(differences.model == "clip_x") & (differences.method == "full")
                         & (differences.outcome == GAIN)].set_index("rival")  # fmt: skip
    assert rivals.n.to_dict() == {"emms": 6, "correct_label_alignment": 7}
    run = tasks[(tasks.model == "clip_x") & (tasks.method == "full") & tasks.emms.notna()]
    assert rivals.iimm["emms"] == pytest.approx(stats.spearmanr(run.iimm, run[GAIN]).statistic)


@pytest.mark.parametrize(
    ("n", "note", "computed"),
    [(1, "n = 1: too few", False), (2, "n = 2: too few", False),
     (3, "n = 3: no order of 3 datasets has an exact p-value below 0.33", True),
     (4, "nothing here is significant", True), (5, "", True)],
)  # fmt: skip
def test_study_statistics_notes_too_few_datasets(n, note, computed):
    table, _ = study_statistics(*make_tasks(n=n), MEASURES, seed=0)
    assert table.note.str.contains(note, regex=False).all() and len(table) == 2 * (3 + 2) * 4
    assert table.spearman.notna().all() == computed and table.slope.notna().all() == computed
    assert table.spearman_low.notna().all() == (n >= 5)
    if n == 3:
        assert table.p_permutation.min() == pytest.approx(2 / 6)


def test_study_statistics_without_tasks_or_without_iimm():
    tasks, measured = make_tasks(n=5)
    table, differences = study_statistics(tasks.iloc[:0], measured, MEASURES, seed=0)
    assert table.empty and differences.empty and list(table.columns) == STATISTICS_COLUMNS
    assert pooled_fits(tasks.iloc[:0], MEASURES, 0).empty
    table, differences = study_statistics(tasks, measured, MEASURES[1:], seed=0)
    assert len(table) == 2 * (3 + 2) * 3 and differences.empty


def test_pooled_fits_skip_methods_with_one_model():
    tasks, _ = make_tasks()
    probe = (tasks.method == "linear_probe") & (tasks.model == "coca_x")
    table = pooled_fits(tasks[~probe], MEASURES, 0)
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


def test_identify_paper_study_compares_models_and_datasets():
    paper = ROOT / "studies/paper.yaml"
    models, datasets = paper_study()
    assert identify_paper_study(models, datasets, paper) == {
        "mine": SAME,
        "coca": SAME,
        "all": OTHER,
    }
    models |= {"s": {"architecture": "ViT-B-16-SigLIP", "pretrained": "webli"},
               "e": {"architecture": "EVA02-B-16", "pretrained": "merged2b_s8b_b131k"}}  # fmt: skip
    assert identify_paper_study(models, datasets, paper)["all"] == SAME
    assert set(identify_paper_study(models, datasets[1:], paper).values()) == {OTHER}
    models["mine"] = {"folder": "somewhere"}
    studies = identify_paper_study(models, datasets, paper)
    assert studies["mine"] == studies["all"] == OTHER and studies["coca"] == SAME


def test_identify_paper_study_recognizes_the_checked_config():
    paper = ROOT / "studies/paper.yaml"
    study = check_config(read_study(paper))
    assert set(identify_paper_study(study["models"], list(study["datasets"]), paper).values()) == {
        SAME
    }
    study["models"]["clip_b32"] |= {"gpus": 4, "parameters": 1.5e8}  # these change no result
    assert set(identify_paper_study(study["models"], list(study["datasets"]), paper).values()) == {
        SAME
    }


def test_make_paper_tables_has_the_papers_numbers_and_ours():
    tasks, measured = make_tasks()
    table, _ = study_statistics(tasks, measured, MEASURES, seed=0)
    cells = make_paper_tables(table, tasks, {"clip_x": OTHER, "coca_x": SAME, "all": OTHER}, 0)
    theirs, ours = cells[cells.source == "paper"], cells[cells.source == "ours"]
    assert theirs.groupby("table").size().to_dict() == {1: 20, 2: 20, 3: 12, 5: 7, 6: 20}
    cell = theirs[(theirs.table == 2) & (theirs.label == "EMMS") & (theirs.model == "SigLIP")]
    assert (cell.value.item(), cell.p.item()) == (0.71, 0.03)
    # Of the four measures, iimm and emms are in tables 1 and 2, the other two in 5 and 6.
    assert ours.groupby("table").size().to_dict() == {1: 4, 2: 4, 5: 2, 6: 2}
    full = tasks[tasks.method == "full"]
    run = full[full.model == "coca_x"]
    cell = ours[(ours.table == 1) & (ours.model == "coca_x") & (ours.measure == "emms")].iloc[0]
    assert cell.value == pytest.approx(stats.spearmanr(run.emms, run[GAIN]).statistic)
    assert cell.study == SAME and cell.n == 11
    cell = ours[(ours.table == 5) & (ours.measure == "silhouette_cosine")].iloc[0]
    fit = stats.linregress(full.silhouette_cosine, full[GAIN])
    assert (cell.value, cell.n) == pytest.approx((fit.rvalue**2, 22))
    assert 0 < cell.p == cell.p_permutation <= 1
    text = format_markdown(cells)
    head = next(line for line in text.splitlines() if line.startswith("| measure"))
    assert [part.strip() for part in head.split("|")[2:-1]] == [
        "CoCa, the paper", "coca_x, this run of the paper's study", "EVA-02, the paper",
        "CLIP, the paper", "clip_x, another study", "SigLIP, the paper",
    ]  # fmt: skip
    assert "| EMMS | 0.700 (p 0.036) |" in text


def test_make_paper_tables_without_full_fine_tuning():
    tasks, measured = make_tasks(methods=("linear_probe",))
    table, _ = study_statistics(tasks, measured, MEASURES, seed=0)
    cells = make_paper_tables(table, tasks, {"clip_x": OTHER, "coca_x": OTHER, "all": OTHER}, 0)
    assert not (cells.source == "ours")[cells.table != 5].any()
    assert format_markdown(cells).count("no full fine-tuning") >= 4
    assert pooled_line(tasks.iloc[:2], "iimm", 0) == {"n": 2}


def test_write_statistics_writes_every_table_reproducibly(tmp_path):
    tasks, measured = make_tasks(n=6)
    tasks.loc[0, "emms"] = np.nan
    studies = {"clip_x": OTHER, "coca_x": OTHER, "all": OTHER}
    write_statistics(tasks, measured, MEASURES, [], 0, studies, tmp_path)
    for name in STATISTICS_TABLE_NAMES:
        frame = pd.read_parquet(tmp_path / f"{name}.parquet")
        assert len(frame) == len(pd.read_csv(tmp_path / f"{name}.csv")) > 0
    rows = json.loads((tmp_path / "statistics.json").read_text())  # strict JSON has no NaN
    table = pd.read_parquet(tmp_path / "statistics.parquet")
    assert [row["n"] for row in rows] == list(table.n) and "NaN" not in json.dumps(rows)
    again = tmp_path / "again"
    write_statistics(tasks, measured, MEASURES, [], 0, studies, again)
    for path in again.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


# ------------------------------------------------- compared with scipy and statsmodels


@pytest.fixture(scope="module")
def default_study(tmp_path_factory):
    """Return the fully fine-tuned tasks of two models of the default study, and the CSV files."""
    tasks = pd.read_parquet(ROOT / "resources/mini/study/analysis/tasks.parquet")
    tasks = tasks[(tasks.method == "full") & tasks.model.isin(["clip_mini", "siglip_mini"])]
    studies = dict.fromkeys(["clip_mini", "siglip_mini", "all"], OTHER)
    folder = tmp_path_factory.mktemp("analysis")
    write_statistics(tasks, tasks[["model", "dataset"]], MEASURES, [], 0, studies, folder)
    tables = {path.stem: pd.read_csv(path) for path in folder.glob("*.csv")}
    return tasks.set_index("model"), tables


def test_write_statistics_csv_agrees_with_scipy_and_statsmodels(default_study):
    tasks, tables = default_study
    table = tables["statistics"]
    assert len(table) == 2 * 4 * 4 and set(table.n[table.outcome == GAIN]) == {28}
    for row in table[table.n > 5].itertuples():
        run = tasks.loc[row.model]
        x, y = run[row.measure], run[row.outcome]
        rho, tau = stats.spearmanr(x, y), stats.kendalltau(x, y, method="asymptotic")
        assert (row.spearman, row.p_asymptotic) == pytest.approx(tuple(rho))
        assert (row.kendall, row.p_kendall_asymptotic) == pytest.approx(tuple(tau))
        fit = smf.ols(f"{row.outcome} ~ {row.measure}", run).fit()
        theirs = [*fit.params[::-1], fit.rsquared, fit.pvalues.iloc[1], *fit.conf_int().iloc[1]]
        ours = [row.slope, row.intercept, row.r2, row.p_slope, row.slope_low, row.slope_high]
        assert ours == pytest.approx(theirs) and row.aicc_line == pytest.approx(
            aicc(fit.llf, row.n, 3)
        )
        bent = smf.ols(
            "y ~ x", pd.DataFrame({"y": y, "x": x.clip(upper=row.hinge_threshold)})
        ).fit()
        assert row.aicc_difference == pytest.approx(aicc(bent.llf, row.n, 4) - row.aicc_line)
    for _, cells in table[table.n > 5].groupby(["model", "outcome"]):
        assert list(cells.p_holm) == pytest.approx(
            list(multipletests(cells.p_permutation, method="holm")[1])
        )


def test_write_statistics_csv_is_near_scipys_permutations_and_bootstrap(default_study):
    """Compare with scipy, which draws other random numbers."""
    tasks, tables = default_study
    chosen = {"model": "siglip_mini", "outcome": "ood_change", "measure": "silhouette_cosine"}
    table = tables["statistics"]
    row = table[(table[list(chosen)] == list(chosen.values())).all(axis=1)].iloc[0]
    x, y = (tasks.loc["siglip_mini"][name].to_numpy() for name in (row.measure, row.outcome))

    def rho(a, b, axis=-1):
        a, b = (stats.rankdata(rows, axis=-1) for rows in np.broadcast_arrays(a, b))
        a, b = (ranks - ranks.mean(axis=-1, keepdims=True) for ranks in (a, b))
        return (a * b).sum(axis=-1) / np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))

    test = stats.permutation_test(
        (x,), lambda order, axis: rho(order, y), permutation_type="pairings", vectorized=True,
        n_resamples=9_999, rng=np.random.default_rng(7),
    )  # fmt: skip
    # Both p-values are twice a tail of 9,999 draws; their difference has a standard error of at
    # most 0.014.
    assert row.p_permutation == pytest.approx(test.pvalue, abs=0.06)
    drawn = stats.bootstrap((x, y), rho, paired=True, vectorized=True, method="percentile",
                            n_resamples=2000, rng=np.random.default_rng(7))  # fmt: skip
    # The difference of two such limits has a standard error of about 0.025.
    assert (row.spearman_low, row.spearman_high) == pytest.approx(
        tuple(drawn.confidence_interval), abs=0.1
    )


def test_write_statistics_csv_has_differences_and_pooled_lines(default_study):
    tasks, tables = default_study
    rhos = tables["statistics"].set_index(["model", "measure", "outcome"]).spearman
    for row in tables["differences"].itertuples():
        iimm, other = (rhos[row.model, name, row.outcome] for name in ("iimm", row.rival))
        assert row.difference == pytest.approx(
            strength(iimm, "iimm", row.outcome) - strength(other, row.rival, row.outcome)
        )
        assert np.isnan(row.low) == (row.n < 5)
    for row in tables["pooled"].itertuples():
        known = tasks.reset_index().dropna(subset=[row.outcome])
        fit = smf.ols(f"{row.outcome} ~ C(model) + {row.measure}", known).fit()
        assert row.n == fit.nobs and row.slope == pytest.approx(fit.params[row.measure])
        assert 0 < row.p_slope <= 1
        assert row.datasets < 5 or row.slope_low < row.slope < row.slope_high
