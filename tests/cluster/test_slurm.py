"""The smoke study on a real Slurm, whose jobs meet what befalls jobs on a cluster.

One run, so that it is short: a job out of memory, one out of time, one requeued and then
cancelled, the controller restarted, Snakemake killed, its orphans refused and cleaned, the rest.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

import slurm_cluster
from checkout import copy_checkout
from foretune.core.config import check_config
from foretune.core.grid import expand_grid
from smoke import jobs

EPOCHS = 7
# As a site would set them. The first try to embed the digits has too little memory.
SITE = {
    'gpu_partition: ""': "gpu_partition: gpu",
    'gpu_type: ""': "gpu_type: fake",
    "cpus_per_gpu_job: 8": "cpus_per_gpu_job: 1",
    "# finetune_model: {": "finetune_model: {runtime: 60 * attempt, mem_mb: 2000} # {",
    "# write_report: {": "embed_images: {mem_mb: \"300 if (attempt, wildcards.dataset) == "
    "(1, 'digits') else 3000\"} # {",
}  # fmt: skip
HASTE = [
    "--slurm-init-seconds-before-status-checks", "1", "--max-status-checks-per-second", "1",
    "--latency-wait", "5",
]  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if slurm_cluster.missing():
        message = f"Slurm is missing: {slurm_cluster.INSTALL}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    cluster = slurm_cluster.Cluster(tmp_path_factory.mktemp("slurm"))
    cluster.env["PATH"] = f"{os.path.dirname(sys.executable)}:{cluster.env['PATH']}"
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


class Run:
    """The study's folder, and what the test does to its jobs."""

    def __init__(self, cluster, folder):
        self.cluster, self.folder = cluster, folder
        profile = (folder / "profiles/slurm/config.yaml").read_text()
        for ours, theirs in SITE.items():
            assert profile.count(ours) == 1 or ours.startswith("#"), ours
            profile = profile.replace(ours, theirs)
        (folder / "profiles/site").mkdir()
        (folder / "profiles/site/config.yaml").write_text(profile)
        study = yaml.safe_load((folder / "studies/smoke.yaml").read_text())
        # A Slurm job starts Snakemake twice: the methods that need no GPU are left out.
        study["methods"] = {"full": {**study["methods"]["full"], "epochs": EPOCHS}}
        del study["datasets"]["mnist"]["shifted"]
        (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
        self.printed = folder / "printed.log"
        self.seen = {"mnist": 0, "digits": 0}  # epochs

    def command(self, *words):
        return {"args": [sys.executable, *words], "cwd": self.folder, "env": self.cluster.env}

    def snakemake(self, *words):
        profile = ["-m", "snakemake", "--profile", "profiles/site", "--configfile", "study.yaml"]
        return self.command(*profile, *HASTE, *words)

    def job(self, dataset, nth=-1):
        """The record of a dataset's newest (or nth) fine-tuning job."""
        name = f"rule_finetune_model_wildcards_clip_mini_full_{dataset}_0"
        found = [job for job in self.cluster.jobs() if job["Comment"] == name]
        return found[nth] if found[nth:] else {"JobState": "NONE", "JobId": "0"}

    def epochs(self, dataset):
        """Epochs of a dataset's fine-tuning that are done."""
        journal = self.folder / f"results/trials/clip_mini/full/{dataset}/0/state/journal.json"
        if not journal.exists():
            return 0
        return max(map(len, json.loads(journal.read_text())["rows"].values()), default=0)

    def wait_for(self, dataset, epochs, **facts):
        """Wait until so many epochs are done and the newest job runs, as `facts` say it should.

        Meanwhile each attempt at a training is stopped after its first new epoch, so that none
        ends, however long what befalls it takes.
        """
        wanted = {"JobState": "RUNNING", **facts}

        def reached():
            for each, seen in self.seen.items():
                if self.epochs(each) > seen:
                    self.freeze(each)
                    self.seen[each] = self.epochs(each)
            return self.seen[dataset] >= epochs and wanted.items() <= self.job(dataset).items()

        self.cluster.wait_until(reached, patience=400)
        return self.job(dataset)["JobId"]

    def freeze(self, dataset):
        """Stop a dataset's training where it is, as a hung file system would."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_text().split("\0")
                here = os.readlink(process / "cwd") == str(self.folder)
                if here and words[1:2] == ["workflow_scripts/finetune.py"] and dataset in words:
                    os.kill(int(process.name), signal.SIGSTOP)


@pytest.fixture(scope="module")
def study(cluster, tmp_path_factory):
    """The study's run, ended well after all that befell it."""
    run = Run(cluster, copy_checkout(tmp_path_factory.mktemp("study")))
    with open(run.printed, "w") as printed:
        first = subprocess.Popen(
            **run.snakemake(), stdout=printed, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        befall(run)
    finally:  # without a chance to cancel its jobs
        first.kill()
        first.wait()
    orphans = cluster.ask("squeue", "-h", "-o", "%A").split()
    run.refused = subprocess.run(**run.snakemake("--nolock"), text=True, capture_output=True)
    run.cleaned = subprocess.run(
        **run.command("workflow_scripts/clean_orphans.py"), text=True, capture_output=True
    )
    run.orphans, run.left = orphans, cluster.ask("squeue", "-h")
    run.second = subprocess.run(**run.snakemake(), text=True, capture_output=True)
    assert run.second.returncode == 0, run.second.stderr[-5000:]
    return run


def befall(run):
    ask = run.cluster.ask
    first = run.wait_for("mnist", 1)
    ask("scontrol", "update", f"JobId={first}", "EndTime=now+1")  # looked at every 30 s
    job = run.wait_for("digits", 1)
    run.cluster.end("slurmctld")
    run.cluster.start_controller()
    run.cluster.wait_until(lambda: ask("squeue", "-h"))
    ask("scontrol", "requeue", job)
    assert run.wait_for("digits", run.seen["digits"] + 1, Restarts="1") == job
    ask("scancel", job)
    run.wait_for("digits", run.seen["digits"] + 1, Restarts="0")
    run.wait_for("mnist", 2)
    assert run.job("mnist")["JobId"] != first


def states(study, dataset):
    name = f"rule_finetune_model_wildcards_clip_mini_full_{dataset}_0"
    return [job["JobState"] for job in study.cluster.jobs() if job["Comment"] == name]


def test_the_study_ends_with_its_report(study):
    assert (study.folder / "results/report.html").stat().st_size > 500_000


def test_each_job_met_its_fate_and_was_tried_again(study):
    assert states(study, "mnist") == ["TIMEOUT", "CANCELLED", "COMPLETED"]
    assert states(study, "digits") == ["CANCELLED", "CANCELLED", "COMPLETED"]
    assert study.job("digits", 0)["Restarts"] == "1"
    assert study.job("mnist", 1)["TimeLimit"] == "02:00:00"  # it grew
    embedded = [job for job in study.cluster.jobs()
                if job["Comment"] == "rule_embed_images_wildcards_clip_mini_digits"]  # fmt: skip
    assert [job["MinMemoryNode"] for job in embedded] == ["300M", "3000M"]
    assert [job["JobState"] == "COMPLETED" for job in embedded] == [False, True]


def test_gpu_jobs_have_a_gpu_each_and_cpu_jobs_none(study):
    lines = (study.cluster.folder / "devices").read_text().split("\n")
    devices = dict(line.split(" ", 1) for line in lines if line)
    seen = {}
    for job in study.cluster.jobs():
        rule = re.match(r"rule_(.*?)(_wildcards_|$)", job["Comment"])[1]
        gpu = rule in ("embed_images", "finetune_model", "evaluate_model")
        assert job["Partition"] == ("gpu" if gpu else "cpu")
        assert (job.get("TresPerJob") == "gres:gpu:fake:1") == gpu
        if job["JobId"] in devices:
            assert (devices[job["JobId"]] in "01") == gpu
            seen.setdefault(rule, set()).add(devices[job["JobId"]])
    assert seen["finetune_model"] == {"0", "1"} and seen["measure_task"] == {"none"}


def test_orphans_are_refused_then_cleaned(study):
    assert len(study.orphans) >= 2 and study.refused.returncode == 1
    assert "make clean-orphans" in study.refused.stdout + study.refused.stderr
    assert "Traceback" not in study.refused.stderr
    assert study.cleaned.returncode == 0 and study.orphans[0] in study.cleaned.stdout
    assert not study.left
    assert jobs(study.second.stderr)["finetune_model"] == 2


def test_resumed_numbers_are_those_of_an_unbroken_run(study, tmp_path):
    for dataset in ("mnist", "digits"):
        broken = study.folder / f"results/trials/clip_mini/full/{dataset}/0"
        epochs = pd.read_parquet(broken / "epochs.parquet")
        log = (study.folder / f"logs/finetune_model/clip_mini/full/{dataset}/0.log").read_text()
        first = int(re.search(r"epoch (\d+)/", log)[1])
        assert 1 < first <= EPOCHS, "the last attempt did not go on, it began anew"
        # The learning rate is constant: up to the epoch after the last break is enough.
        whole = unbroken(study, dataset, first, tmp_path / dataset)
        pd.testing.assert_frame_equal(epochs[NUMBERS][:first], whole[NUMBERS], check_exact=True)


NUMBERS = ["epoch", "loss", "val_accuracy", "learning_rate", "ended"]


def unbroken(study, dataset, epochs, output):
    """The epochs of the same training, outside Slurm and in one go."""
    config = check_config(yaml.safe_load((study.folder / "study.yaml").read_text()))
    full = config["methods"]["full"]
    recipe = {k: v for k, v in full.items() if not isinstance(v, list)} | {"epochs": epochs}
    command = study.command(
        "workflow_scripts/finetune.py", "--model", "clip_mini", "--method", "full",
        "--dataset-name", dataset, "--model-spec", json.dumps({"folder": "resources/mini/clip"}),
        "--recipe", json.dumps(recipe), "--trials", json.dumps(expand_grid(full)), "--seed", "0",
        "--dataset", f"results/datasets/{dataset}", "--prepared", "results/prepared",
        "--text", f"results/embeddings/clip_mini/{dataset}/text.parquet", "--output", str(output),
    )  # fmt: skip
    subprocess.run(**command | {"env": {**command["env"], "OMP_NUM_THREADS": "1"}}, check=True)
    return pd.read_parquet(output / "epochs.parquet")
