"""Run the smoke study with Snakemake as a user does, and check what it writes and reruns.

The tests share one copy of the study. Some add to it, so their order matters.
"""

import os
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import yaml
import yte

import forked
from checkout import ROOT
from foretune.core.config import check_config
from foretune.core.locks import acquire_lock
from foretune.core.study_file import read_study
from foretune.report.so_far import link_results, report_so_far, write_report
from report_browser import opened
from report_study import embedded, unpack
from smoke import COMMAND, ENV, jobs, numbers, run, run_snakemake

pytestmark = pytest.mark.long


def test_smoke_study_runs_to_a_report(study):
    checkout, printed = study
    assert jobs(printed)["finetune_model"] == 2
    assert (checkout / "results/report.html").stat().st_size > 500_000
    outcomes, tasks, measures = numbers(checkout)
    # There are three tests: two datasets' own and a shifted one of mnist. The zero-shot model takes
    # all of them, so do both fine-tuned models, each whole and interpolated half way, and both
    # adapters. A probe takes the tests of its own dataset only: two of mnist and one of digits.
    assert len(outcomes) == 3 + 2 * (2 * 3) + 2 * 3 + (2 + 1)
    assert set(tasks.method) == {"full", "clip_adapter", "linear_probe"} and len(measures) == 2
    drift = pd.read_parquet(checkout / "results/analysis/drift.parquet")
    assert list(drift.dataset) == ["mnist", "digits"] and (drift.mean_displacement > 0).all()
    assert (drift.iimm_change.abs() <= drift.bound).all()
    curve = pd.read_parquet(checkout / "results/analysis/wise_ft.parquet")
    assert sorted(curve.wise_ft) == [0.5, 0.5, 1, 1] and set(curve.method) == {"full"}
    predictions = {path.name for path in checkout.glob("results/predictions/*.parquet")}
    assert set(outcomes.predictions) == predictions and len(predictions) == len(outcomes)
    by_class = pd.read_parquet(checkout / "results/analysis/class_accuracy.parquet")
    assert len(by_class) == 10 * len(outcomes)
    key = ["method", "wise_ft", "trained_on", "evaluated_on", "split"]
    means = by_class.groupby(key, dropna=False).accuracy.mean()
    expected = outcomes.set_index(key).mean_class_accuracy
    pd.testing.assert_series_equal(means.sort_index(), expected.sort_index(), check_names=False)
    logs = (checkout / "logs/finetune_model/clip_mini/full/mnist/0.log").read_text()
    assert "epoch 1/1" in logs and "images/s" in logs


def test_shifted_test_is_evaluated_and_does_not_count_as_another_task(study):
    outcomes, tasks, _ = numbers(study[0])
    outcomes = outcomes[outcomes.wise_ft.fillna(1) == 1]
    shifted = outcomes[outcomes.split == "digits"]
    assert set(shifted.evaluated_on) == {"mnist"}
    assert sorted(shifted.method) == [
        "clip_adapter", "clip_adapter", "full", "full", "linear_probe", "zero_shot"
    ]  # fmt: skip
    # The shifted test has the images and captions of the dataset digits.
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
    assert pd.isna(tasks.ood_change["full", "digits"])  # mnist is no other task for it either


def test_confusions_agree_with_the_predictions(study):
    confusions = pd.read_parquet(study[0] / "results/analysis/confusions.parquet")
    outcomes, _, _ = numbers(study[0])
    condition = "method == 'full' and wise_ft == 1 and split == 'test' and evaluated_on == 'mnist'"
    row = outcomes.query(condition + " and trained_on == 'mnist'")
    predictions = pd.read_parquet(study[0] / "results/predictions" / row.predictions.iloc[0])
    counts = pd.crosstab(predictions.label, predictions.predicted)
    own = confusions.query("method == 'full' and evaluated_on == 'mnist' and split == 'test'")
    assert len(own) and own["class"].nunique() <= 8
    for row in own.to_dict("records"):  # the class names of the digits are their labels
        assert counts.loc[int(row["class"]), int(row["predicted"])] == row["n"]
        assert (predictions.label == int(row["class"])).sum() == row["class_n"]
    assert set(confusions.method) == {"zero_shot", "full", "clip_adapter", "linear_probe"}


def test_snakemake_report_is_made_offline(study, browser):
    """It lists our tables and figures with their categories, captions and labels."""
    checkout, _ = study
    run(checkout)
    no_network = dict.fromkeys(["http_proxy", "https_proxy", "ALL_PROXY"], "http://127.0.0.1:9")
    made = run_snakemake(
        *COMMAND[1:], "--report", "snakemake-report.html", cwd=checkout, env=ENV | no_network
    )
    assert made.returncode == 0, made.stdout[-3000:]
    assert "download" not in made.stdout.lower()
    with opened(browser, checkout / "snakemake-report.html", drawn="#app", quiet=False) as page:
        categories, results = page.evaluate("[categories, results]")
        assert set(categories) == {"Figures", "Report", "Tables"}
        assert {"results/report.html", "results/figures/models.svg",
                "results/analysis/findings.csv"} <= set(results)  # fmt: skip
        figure = results["results/figures/models.svg"]
        assert figure["labels"] == {"figure": "gain and forgetting against IIMM", "by": "model"}
        assert "figure 3" in figure["caption"]
        # Of figures with equal labels, Snakemake would list only one.
        labels = results["results/figures/accuracy_clip_mini.svg"]["labels"]
        assert labels["figure"].startswith("accuracy of clip_mini, ")
        page.click("text=Figures")
        page.wait_for_selector("text=gain against forgetting")


def test_report_rule_reads_the_forecasts(study):
    config = yaml.safe_load((study[0] / "studies/smoke.yaml").read_text())
    new = {"parquet": "resources/mini/shapes.parquet"}
    config["forecast"] = {"datasets": {"shapes": new}}
    (study[0] / "studies/forecast.yaml").write_text(yaml.safe_dump(config))
    printed = run(study[0], "-n", "-p", "--study", "studies/forecast.yaml")
    assert jobs(printed)["forecast_datasets"] == 1
    assert re.search(r"python workflow_scripts/report\.py .* --forecast results/forecast ", printed)


def test_second_run_does_nothing(study):
    assert "Nothing to be done" in run(study[0])


def test_added_dataset_runs_only_new_jobs(study):
    checkout, _ = study
    config = yaml.safe_load((checkout / "studies/smoke.yaml").read_text())
    config["datasets"]["fashion_mnist"] = {"parquet": "resources/mini/fashion_mnist.parquet"}
    (checkout / "studies/grown.yaml").write_text(yaml.safe_dump(config))
    before = {
        path: path.stat().st_mtime_ns for path in checkout.glob("results/trials/**/best.json")
    }
    predictions = set(checkout.glob("results/predictions/*.parquet"))
    grown = ["--study", "studies/grown.yaml"]
    expected = {
        "prepare_dataset": 1, "embed_images": 1, "embed_captions": 1, "measure_task": 1,
        "rehearse_task": 1,
        "finetune_model": 1, "fit_cached": 2, "evaluate_zero_shot": 1, "evaluate_probe": 1,
        "evaluate_adapter": 1, "evaluate_model": 1,
        "analyze_study": 1, "draw_figures": 1, "write_report": 1, "all": 1,
    }  # fmt: skip
    assert jobs(run(checkout, "-n", *grown)) == expected
    assert jobs(run(checkout, *grown)) == expected
    assert all(path.stat().st_mtime_ns == mtime for path, mtime in before.items())
    # The new predictions: two old models on the new test and the new model on all four, each at two
    # coefficients; the adapters likewise, at one; the new probe and the zero-shot model on the new
    # test.
    new = set(checkout.glob("results/predictions/*.parquet")) - predictions
    assert len(new) == 2 * 6 + 6 + 2
    # embed_images prepares the images, and no later job does.
    log = (checkout / "logs/evaluate_model/clip_mini/full.log").read_text()
    assert log.count("images prepared") == 0
    log = (checkout / "logs/embed_images/clip_mini/fashion_mnist.log").read_text()
    assert log.count("images prepared") == 3
    outcomes, tasks, _ = numbers(checkout)
    assert len(outcomes) == 4 + 2 * 3 * 4 + 3 * 4 + (2 + 1 + 1)
    assert tasks.ood_change[tasks.method == "full"].notna().all()
    assert "Nothing to be done" in run(checkout, *grown)


def test_report_of_what_a_half_done_study_has(study, tmp_path):
    """It needs no lock, changes nothing of the study and says what is missing."""
    results, so_far = tmp_path / "results", tmp_path / "results/so_far"
    shutil.copytree(study[0] / "results", results)
    (tmp_path / "resources").symlink_to(study[0] / "resources")
    for path in [*results.glob("evaluations/clip_mini/full*"), results / "report.html"]:
        path.unlink()
    shutil.rmtree(results / "analysis")
    for name in ("measures/clip_mini/mnist.json", "trials/clip_mini/full/mnist/0/best.json"):
        (results / name).unlink()
    lock = acquire_lock(results / ".lock")  # as the run has it
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()}

    script = study[0] / "workflow_scripts/report_so_far.py"
    done = forked.run(script, "--study", study[0] / "studies/smoke.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    *missing, last = done.stdout.splitlines()
    assert last == f"The report of what is there so far: {so_far / 'report.html'}"
    assert [line for line in missing if "full" in line or "measured" in line] == [
        "missing: clip_mini on mnist: not measured yet",
        "missing: clip_mini, full on mnist: not trained yet",
        "missing: clip_mini, full on digits: trained, not tested yet",
    ]
    page = (so_far / "report.html").read_text()
    assert "smoke study, so far" in page
    assert all(f"<li>{line.removeprefix('missing: ')}</li>" in page for line in missing)
    tasks = pd.read_parquet(so_far / "analysis/tasks.parquet")
    assert set(tasks.method) == {"clip_adapter", "linear_probe"}
    assert len(pd.read_csv(so_far / "analysis/missing.csv")) >= 3
    assert {path.name for path in so_far.iterdir()} == {
        ".lock", "analysis", "provenance.json", "report.html"
    }  # fmt: skip
    after = {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()}
    assert before.items() <= after.items()
    os.close(lock)


def test_report_so_far_reads_what_it_has_linked(study, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(study[0] / "results", results)
    config = check_config(read_study(study[0] / "studies/smoke.yaml"))
    snapshot = link_results(config, results, tmp_path / "links")
    for folder in ("evaluations", "measures", "trials", "datasets", "rehearsals"):
        shutil.rmtree(results / folder)  # as jobs that are run again do
    paper = ROOT / "studies/paper.yaml"
    missing = write_report(config, snapshot, tmp_path / "out", paper)
    assert missing == [] and (tmp_path / "out/report.html").exists()
    assert report_so_far(config, results, tmp_path / "none", paper) is None
    assert [path.name for path in (tmp_path / "none").iterdir()] == [".lock"]


@pytest.mark.slow
def test_external_embeddings_are_measured_and_reported(study):
    checkout, _ = study
    run(checkout)
    config = yaml.safe_load((checkout / "studies/smoke.yaml").read_text())
    cache = "results/embeddings/clip_mini/mnist"
    config["embeddings"] = {
        "mine": {"images": f"{cache}/train.parquet", "texts": f"{cache}/text.parquet"}
    }
    (checkout / "studies/external.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    external = ["--study", "studies/external.yaml"]
    # The report reruns because it shows the config, the analysis because of its new input.
    expected = {
        "measure_embeddings": 1, "analyze_study": 1, "draw_figures": 1, "write_report": 1, "all": 1
    }  # fmt: skip
    assert jobs(run(checkout, *external)) == expected
    measures = pd.read_parquet(checkout / "results/analysis/measures.parquet")
    mine = measures[measures.dataset == "mine"].iloc[0]
    same = measures[measures.dataset == "mnist"].iloc[0]
    assert pd.isna(mine.model) and mine.iimm == same.iimm
    assert mine["iimm.low"] < mine.iimm < mine["iimm.high"]
    shown = unpack(embedded((checkout / "results/report.html").read_text(), "data-measures"))
    assert "mine" in set(shown.dataset)
    assert "Nothing to be done" in run(checkout, *external)


@pytest.mark.slow
def test_method_runs_on_the_models_that_it_names(study):
    checkout, _ = study
    config = yaml.safe_load((checkout / "studies/smoke.yaml").read_text())
    config["models"]["other"] = config["models"]["clip_mini"]
    config["methods"]["full"]["models"] = ["clip_mini"]
    (checkout / "studies/models.yaml").write_text(yaml.safe_dump(config))
    run(checkout)  # another test may have added a dataset
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


def test_suite_targets_rebuild_the_tasks_or_also_the_encoders(checkout):
    data, suite = (jobs(run(checkout, "-n", target)) for target in ("suite_data", "suite"))
    assert data["build_bundle"] == suite["build_bundle"] == 14
    assert "pretrain_encoder" not in data and suite["pretrain_encoder"] == 4


SNAKEMAKE = ["-m", "snakemake", "--cores", "1", "--forcerun", "write_report",
             "--configfile", "studies/smoke.yaml"]  # fmt: skip


@pytest.mark.parametrize("command", [COMMAND[1:], SNAKEMAKE], ids=["run_study", "snakemake"])
def test_run_is_refused_while_another_run_holds_the_lock(study, command):
    holder = "from foretune.core.locks import lock_results; lock_results(); print(); input()"
    env = {**ENV, "PYTHONPATH": "workflow_scripts"}
    first = subprocess.Popen(
        [sys.executable, "-c", holder], cwd=study[0], env=env, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    first.stdout.readline()
    second = run_snakemake(*command, cwd=study[0])
    first.communicate()
    assert second.returncode == 1 and "Traceback" not in second.stdout
    assert re.search(rf"another run is at work .*\(.*process {first.pid}\)", second.stdout)


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
def test_unreadable_study_is_named_in_the_error(checkout, text, message):
    if text is not None:
        (checkout / "mine.yaml").write_text(text)
    printed = run(checkout, "--study", "mine.yaml", check=False)
    assert printed.startswith("error: mine.yaml: ") and message in printed
    assert "Traceback" not in printed


def test_slurm_profile_is_found_by_its_name(study, tmp_path):
    env = {**ENV, "XDG_CONFIG_HOME": str(tmp_path)}
    link = ["make", "-o", ".venv/bin/.run", "slurm-profile"]
    subprocess.run(link, cwd=ROOT, env=env, check=True)
    subprocess.run(link, cwd=ROOT, env=env, check=True)  # a second time does no harm
    command = ["-m", "snakemake", "-n", "-q", "--profile", "slurm",
               "--configfile", "studies/smoke.yaml", "--forceall"]  # fmt: skip
    done = run_snakemake(*command, cwd=study[0], env=env)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "snakemake/slurm").resolve() == ROOT / "profiles/slurm"
    (tmp_path / "snakemake/slurm").unlink()
    (tmp_path / "snakemake/slurm").mkdir()  # the user's own profile
    refused = subprocess.run(link, cwd=ROOT, env=env, capture_output=True, text=True)
    assert refused.returncode and "is a profile of yours already" in refused.stdout


def test_default_profile_is_used_on_this_machine_only(monkeypatch):
    def read_profile(*words):
        monkeypatch.setattr(sys, "argv", ["snakemake", *words])
        with open("profiles/default/config.yaml") as profile:
            return yte.process_yaml(profile, require_use_yte=True)

    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    alone = read_profile("-n")
    assert alone["cores"] == "all" and alone["resources"] == ["gpu=2"]
    assert read_profile("--profile", "profiles/local") == alone
    of_all = {"max-jobs-per-timespan": "1000/10s"}
    assert read_profile("--profile", "profiles/slurm") == of_all == read_profile("-e", "slurm")
    monkeypatch.setenv("SNAKEMAKE_PROFILE", "slurm")
    assert read_profile("-n") == of_all
    assert read_profile("--profile=profiles/local") == alone


def test_snakemake_alone_takes_the_default_profile(study):
    command = ["-m", "snakemake", "-n", "--configfile", "studies/smoke.yaml"]
    done = run_snakemake(*command, cwd=study[0])
    assert done.returncode == 0, done.stdout
    assert "profile profiles/default" in done.stdout


def test_rules_have_a_message_and_no_long_line():
    for path in (ROOT / "rules").glob("*.smk"):
        text = path.read_text()
        assert max(map(len, text.splitlines())) <= 100, path
        blocks = re.split(r"^(?=(?:use )?rule )", text, flags=re.M)[1:]
        assert all("\n    message:\n" in block for block in blocks), path


def test_snakemake_lint_finds_nothing(study):
    done = run_snakemake("-m", "snakemake", "--lint", cwd=study[0])
    assert done.returncode == 0, done.stdout
    assert "Congratulations" in done.stdout
