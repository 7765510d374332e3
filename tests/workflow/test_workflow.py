"""The smoke study through the real Snakemake, as a user runs it."""

import re
import subprocess
import sys

import pandas as pd
import pytest
import yaml

import smoke
from checkout import ROOT
from report_browser import opened
from smoke import COMMAND, ENV, jobs, numbers, run


def test_the_chain_runs_to_a_report(study):
    checkout, printed = study
    assert jobs(printed)["finetune_model"] == 2
    assert (checkout / "results/report.html").stat().st_size > 500_000
    outcomes, tasks, measures = numbers(checkout)
    # Three tests, of which one is a shifted test of mnist, for zero-shot and for each of the two
    # that were tuned, half way and whole, and of the two adapters; probes on their own.
    assert len(outcomes) == 3 + 2 * (2 * 3) + 2 * 3 + (2 + 1)
    assert set(tasks.method) == {"full", "clip_adapter", "linear_probe"} and len(measures) == 2
    moved = pd.read_parquet(checkout / "results/analysis/drift.parquet")
    assert list(moved.dataset) == ["mnist", "digits"] and (moved.mean_displacement > 0).all()
    assert (moved.iimm_change.abs() <= moved.bound).all()
    curve = pd.read_parquet(checkout / "results/analysis/wise_ft.parquet")
    assert sorted(curve.wise_ft) == [0.5, 0.5, 1, 1] and set(curve.method) == {"full"}
    kept = {path.name for path in checkout.glob("results/predictions/*.parquet")}
    assert set(outcomes.predictions) == kept and len(kept) == len(outcomes)
    by_class = pd.read_parquet(checkout / "results/analysis/class_accuracy.parquet")
    assert len(by_class) == 10 * len(outcomes)
    key = ["method", "wise_ft", "trained_on", "evaluated_on", "split"]
    means = by_class.groupby(key, dropna=False).accuracy.mean()
    expected = outcomes.set_index(key).mean_class_accuracy
    pd.testing.assert_series_equal(means.sort_index(), expected.sort_index(), check_names=False)
    logs = (checkout / "logs/finetune_model/clip_mini/full/mnist/0.log").read_text()
    assert "epoch 1/1" in logs and "images/s" in logs


def test_a_shifted_test_is_tested_and_no_other_task(study):
    outcomes, tasks, _ = numbers(study[0])
    outcomes = outcomes[outcomes.wise_ft.fillna(1) == 1]
    shifted = outcomes[outcomes.split == "digits"]
    assert set(shifted.evaluated_on) == {"mnist"}
    assert sorted(shifted.method) == [
        "clip_adapter", "clip_adapter", "full", "full", "linear_probe", "zero_shot"
    ]  # fmt: skip
    # The same images as the dataset's; its captions are the same too, and so is the model.
    plain = outcomes[(outcomes.split == "test") & (outcomes.evaluated_on == "digits")]
    assert set(shifted.test_digest) == set(plain.test_digest)
    both = shifted.merge(plain[plain.method == "full"], on=["model", "method", "trained_on"])
    assert list(both.accuracy_x) == list(both.accuracy_y) and len(both) == 2
    tasks = tasks.set_index(["method", "dataset"])
    own = shifted[(shifted.method == "full") & (shifted.trained_on == "mnist")].iloc[0]
    assert tasks.shifted_change["full", "mnist"] == own.accuracy - own.zero_shot_accuracy
    assert pd.isna(tasks.ood_change["full", "mnist"]) and pd.isna(
        tasks.shifted_change["full", "digits"]
    )
    assert pd.isna(tasks.ood_change["full", "digits"])  # nor is mnist another task to it


def test_confusions_are_those_of_the_predictions(study):
    found = pd.read_parquet(study[0] / "results/analysis/confusions.parquet")
    outcomes, _, _ = numbers(study[0])
    asked = "method == 'full' and wise_ft == 1 and split == 'test' and evaluated_on == 'mnist'"
    one = outcomes.query(asked + " and trained_on == 'mnist'")
    kept = pd.read_parquet(study[0] / "results/predictions" / one.predictions.iloc[0])
    counts = pd.crosstab(kept.label, kept.predicted)
    own = found.query("method == 'full' and evaluated_on == 'mnist' and split == 'test'")
    assert len(own) and own["class"].nunique() <= 8
    for row in own.to_dict("records"):  # a digit's class is its label
        assert counts.loc[int(row["class"]), int(row["predicted"])] == row["n"]
        assert (kept.label == int(row["class"])).sum() == row["class_n"]
    assert set(found.method) == {"zero_shot", "full", "clip_adapter", "linear_probe"}


def test_snakemakes_own_report_is_made_offline(study, browser):
    """With our tables and figures in it by category, caption and label."""
    checkout, _ = study
    run(checkout)
    nowhere = dict.fromkeys(["http_proxy", "https_proxy", "ALL_PROXY"], "http://127.0.0.1:9")
    made = subprocess.run(
        [*COMMAND, "--report", "snakemake-report.html"], cwd=checkout, env=ENV | nowhere,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout[-3000:]
    assert "download" not in made.stdout.lower()
    with opened(browser, checkout / "snakemake-report.html", drawn="#app", quiet=False) as page:
        found = page.evaluate("[categories, results]")
        assert set(found[0]) == {"Figures", "Report", "Tables"}
        kept = found[1]
        assert {"results/report.html", "results/figures/models.svg",
                "results/analysis/findings.csv"} <= set(kept)  # fmt: skip
        figure = kept["results/figures/models.svg"]
        assert figure["labels"] == {"figure": "gain and forgetting against IIMM", "by": "model"}
        assert "figure 3" in figure["caption"]
        # One figure a model, each with a label of its own, or only one of them is listed.
        labels = kept["results/figures/accuracy_clip_mini.svg"]["labels"]
        assert labels["figure"].startswith("accuracy of clip_mini, ")
        page.click("text=Figures")
        page.wait_for_selector("text=gain against forgetting")


def test_forecasts_are_in_the_report(study):
    whole = yaml.safe_load((study[0] / "studies/smoke.yaml").read_text())
    new = {"parquet": "resources/mini/shapes.parquet"}
    whole["forecast"] = {"datasets": {"shapes": new}}
    (study[0] / "studies/forecast.yaml").write_text(yaml.safe_dump(whole))
    printed = run(study[0], "-n", "-p", "--study", "studies/forecast.yaml")
    assert jobs(printed)["forecast_datasets"] == 1
    assert re.search(r"python workflow_scripts/report\.py .* --forecast results/forecast ", printed)


def test_a_second_run_does_nothing(study):
    assert "Nothing to be done" in run(study[0])


def test_a_third_dataset_runs_only_what_is_new(study):
    checkout, _ = study
    whole = yaml.safe_load((checkout / "studies/smoke.yaml").read_text())
    whole["datasets"]["fashion_mnist"] = {"parquet": "resources/mini/fashion_mnist.parquet"}
    (checkout / "studies/grown.yaml").write_text(yaml.safe_dump(whole))
    before = {
        path: path.stat().st_mtime_ns for path in checkout.glob("results/trials/**/best.json")
    }
    predictions = set(checkout.glob("results/predictions/*.parquet"))
    grown = ["--study", "studies/grown.yaml"]
    expected = {
        "prepare_dataset": 1, "embed_images": 1, "embed_captions": 1, "measure_task": 1,
        "finetune_model": 1, "fit_cached": 2, "evaluate_zero_shot": 1, "evaluate_probe": 1,
        "evaluate_adapter": 1, "evaluate_model": 1,
        "analyze_study": 1, "draw_figures": 1, "write_report": 1, "all": 1,
    }  # fmt: skip
    assert jobs(run(checkout, "-n", *grown)) == expected
    assert jobs(run(checkout, *grown)) == expected
    assert all(path.stat().st_mtime_ns == mtime for path, mtime in before.items())
    # Two old models on the new task, the new model on all four tests, each at two coefficients,
    # and so with adapters, at one; a new probe on its own test, and the zero-shot model on the new.
    new = set(checkout.glob("results/predictions/*.parquet")) - predictions
    assert len(new) == 2 * 6 + 6 + 2
    # Images are prepared when they are embedded, and by no job after that.
    log = (checkout / "logs/evaluate_model/clip_mini/full.log").read_text()
    assert log.count("images prepared") == 0
    log = (checkout / "logs/embed_images/clip_mini/fashion_mnist.log").read_text()
    assert log.count("images prepared") == 3
    outcomes, tasks, _ = numbers(checkout)
    assert len(outcomes) == 4 + 2 * 3 * 4 + 3 * 4 + (2 + 1 + 1)
    assert tasks.ood_change[tasks.method == "full"].notna().all()
    assert "Nothing to be done" in run(checkout, *grown)


def test_embeddings_from_elsewhere_are_measured_and_reported(study):
    checkout, _ = study
    run(checkout)
    whole = yaml.safe_load((checkout / "studies/smoke.yaml").read_text())
    cache = "results/embeddings/clip_mini/mnist"
    whole["embeddings"] = {
        "mine": {"images": f"{cache}/train.parquet", "texts": f"{cache}/text.parquet"}
    }
    (checkout / "studies/elsewhere.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))
    elsewhere = ["--study", "studies/elsewhere.yaml"]
    # The report, because it shows the config; the analysis, because it has one input more.
    expected = {
        "measure_embeddings": 1, "analyze_study": 1, "draw_figures": 1, "write_report": 1, "all": 1
    }  # fmt: skip
    assert jobs(run(checkout, *elsewhere)) == expected
    measures = pd.read_parquet(checkout / "results/analysis/measures.parquet")
    mine = measures[measures.dataset == "mine"].iloc[0]
    same = measures[measures.dataset == "mnist"].iloc[0]
    assert pd.isna(mine.model) and mine.iimm == same.iimm
    assert mine["iimm.low"] < mine.iimm < mine["iimm.high"]
    assert '"mine"' in (checkout / "results/report.html").read_text()
    assert "Nothing to be done" in run(checkout, *elsewhere)


@pytest.mark.slow
def test_a_method_runs_on_the_models_it_names(study):
    checkout, _ = study
    whole = yaml.safe_load((checkout / "studies/smoke.yaml").read_text())
    whole["models"]["other"] = whole["models"]["clip_mini"]
    whole["methods"]["full"]["models"] = ["clip_mini"]
    (checkout / "studies/models.yaml").write_text(yaml.safe_dump(whole))
    run(checkout)  # whether or not it has grown since
    expected = jobs(run(checkout, "-n", "--study", "studies/models.yaml"))
    assert "finetune_model" not in expected and expected["fit_cached"] == 4
    run(checkout, "--study", "studies/models.yaml")
    _, tasks, _ = numbers(checkout)
    cells = tasks.groupby(["model", "method"]).size().to_dict()
    assert cells == {
        ("clip_mini", "full"): 2,
        **{(model, method): 2 for model in ("clip_mini", "other")
           for method in ("clip_adapter", "linear_probe")},
    }  # fmt: skip
    assert '["other","linear_probe"]' in (checkout / "results/report.html").read_text()


def test_resources_have_targets_of_their_own(checkout):
    data, whole = (jobs(run(checkout, "-n", target)) for target in ("suite_data", "suite"))
    assert data["build_bundle"] == whole["build_bundle"] == 14
    assert "pretrain_encoder" not in data and whole["pretrain_encoder"] == 4


PLAIN = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", "studies/smoke.yaml",
         "--forcerun", "write_report"]  # fmt: skip


@pytest.mark.parametrize("command", [smoke.COMMAND, PLAIN], ids=["run_study", "snakemake"])
def test_a_run_beside_a_run_is_refused(study, command):
    holder = "from foretune.core.locks import lock_results; lock_results(); print(); input()"
    env = {**ENV, "PYTHONPATH": "workflow_scripts"}
    first = subprocess.Popen(
        [sys.executable, "-c", holder], cwd=study[0], env=env, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    first.stdout.readline()
    second = subprocess.run(command, cwd=study[0], env=ENV, text=True, capture_output=True)
    first.communicate()
    printed = second.stdout + second.stderr
    assert second.returncode == 1 and "Traceback" not in printed
    assert re.search(rf"another run is at work .*\(.*process {first.pid}\)", printed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("a: [", "cannot be read"),
        ("", "not a study"),
        ("- a", "not a"),
        ("a:\n  b: 1\n  c: 2\n  b: 3", "b: appears twice, in lines 2 and 4"),
    ],
)
def test_a_study_that_cannot_be_read_is_named(checkout, text, message):
    if text is not None:
        (checkout / "mine.yaml").write_text(text)
    printed = run(checkout, "--study", "mine.yaml", check=False)
    assert printed.startswith("error: mine.yaml: ") and message in printed
    assert "Traceback" not in printed


def test_slurm_profile_resolves_by_its_name(study, tmp_path):
    env = {**ENV, "XDG_CONFIG_HOME": str(tmp_path)}
    link = ["make", "-o", ".venv/bin/.run", "slurm-profile"]
    subprocess.run(link, cwd=ROOT, env=env, check=True)
    subprocess.run(link, cwd=ROOT, env=env, check=True)  # again does no harm
    command = [sys.executable, "-m", "snakemake", "-n", "-q", "--profile", "slurm",
               "--configfile", "studies/smoke.yaml", "--forceall"]  # fmt: skip
    done = subprocess.run(command, cwd=study[0], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "snakemake/slurm").resolve() == ROOT / "profiles/slurm"
    (tmp_path / "snakemake/slurm").unlink()
    (tmp_path / "snakemake/slurm").mkdir()  # a profile of the user's own
    refused = subprocess.run(link, cwd=ROOT, env=env, capture_output=True, text=True)
    assert refused.returncode and "is a profile of yours already" in refused.stdout


def test_lint(study):
    command = [sys.executable, "-m", "snakemake", "--lint"]
    done = subprocess.run(command, cwd=study[0], env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Congratulations" in done.stdout + done.stderr
