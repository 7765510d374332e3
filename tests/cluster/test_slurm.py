"""Run the smoke study on a real Slurm, and make its jobs fail in the ways of a cluster.

To save time, all of it happens in one run: a job exceeds its memory, one its time, one is requeued
and then cancelled, the controller restarts, and Snakemake is killed. A second run is refused until
the orphaned jobs are cancelled, and then completes the study.
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

import forked
import slurm_cluster
from checkout import copy_checkout
from foretune.core.config import check_config
from foretune.core.grid import expand_grid
from real_parts import refuse_missing
from smoke import jobs, run_snakemake

pytestmark = pytest.mark.long

EPOCHS = 5
# The settings of a site. The first attempt to embed the digits gets too little memory.
SITE = {
    'gpu_partition: ""': "gpu_partition: gpu",
    'gpu_type: ""': "gpu_type: fake",
    "cpus_per_gpu_job: 8": "cpus_per_gpu_job: 1",
    "# finetune_model: {": "finetune_model: {runtime: 60 * attempt, mem_mb: 2000} # {",
    "# write_report: {": "embed_images: {mem_mb: \"300 if (attempt, wildcards.dataset) == "
    "(1, 'digits') else 3000\"} # {",
}  # fmt: skip
FAST_POLLING = [
    "--slurm-init-seconds-before-status-checks", "1", "--max-status-checks-per-second", "1",
    "--latency-wait", "5",
]  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    refuse_missing(slurm_cluster.missing() and f"Slurm is missing: {slurm_cluster.INSTALL}")
    cluster = slurm_cluster.Cluster(tmp_path_factory.mktemp("slurm"))
    cluster.env["PATH"] = f"{os.path.dirname(sys.executable)}:{cluster.env['PATH']}"
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


class Run:
    """The run of a study on the cluster: commands in its folder, and the state of its jobs."""

    def __init__(self, cluster, folder):
        self.cluster, self.folder = cluster, folder
        profile = (folder / "profiles/slurm/config.yaml").read_text()
        for default, setting in SITE.items():
            assert profile.count(default) == 1 or default.startswith("#"), default
            profile = profile.replace(default, setting)
        (folder / "profiles/site").mkdir()
        (folder / "profiles/site/config.yaml").write_text(profile)
        study = yaml.safe_load((folder / "studies/smoke.yaml").read_text())
        # Leave out the methods without GPU: each Slurm job starts Snakemake twice.
        study["methods"] = {"full": {**study["methods"]["full"], "epochs": EPOCHS}}
        del study["datasets"]["mnist"]["shifted"]
        (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
        self.printed = folder / "printed.log"
        self.seen = {"mnist": 0, "digits": 0}  # epochs that were done when the training was stopped

    def command(self, *words):
        """Return the arguments of `subprocess.run` for Python in the folder, on this Slurm."""
        return {"args": [sys.executable, *words], "cwd": self.folder, "env": self.cluster.env}

    def snakemake(self, *words):
        """Return the arguments of `subprocess.run` for Snakemake with the site's profile."""
        profile = ["-m", "snakemake", "--profile", "profiles/site", "--configfile", "study.yaml"]
        return self.command(*profile, *FAST_POLLING, *words)

    def job(self, dataset, nth=-1):
        """Return the record of a dataset's newest (or nth) fine-tuning job."""
        name = f"rule_finetune_model_wildcards_clip_mini_full_{dataset}_0"
        records = [job for job in self.cluster.jobs() if job["Comment"] == name]
        return records[nth] if records[nth:] else {"JobState": "NONE", "JobId": "0"}

    def epochs(self, dataset):
        """Return the number of finished epochs of a dataset's fine-tuning."""
        journal = self.folder / f"results/trials/clip_mini/full/{dataset}/0/state/journal.json"
        if not journal.exists():
            return 0
        return max(map(len, json.loads(journal.read_text())["rows"].values()), default=0)

    def wait_for(self, dataset, epochs, **facts):
        """Wait for `epochs` finished epochs and a newest job with `facts`; return the job's id.

        Meanwhile, stop each attempt at a training after its first new epoch, so that no training
        ends before the test has done to it what it wants, however long that takes.
        """
        wanted = {"JobState": "RUNNING", **facts}

        def reached():
            for name, seen in self.seen.items():
                if self.epochs(name) > seen:
                    self.freeze(name)
                    self.seen[name] = self.epochs(name)
            return self.seen[dataset] >= epochs and wanted.items() <= self.job(dataset).items()

        self.cluster.wait_until(reached, patience=400)
        return self.job(dataset)["JobId"]

    def freeze(self, dataset):
        """Stop a dataset's training process, as a hung file system would."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_text().split("\0")
                in_folder = os.readlink(process / "cwd") == str(self.folder)
                if (
                    in_folder
                    and words[1:2] == ["workflow_scripts/finetune.py"]
                    and dataset in words
                ):
                    os.kill(int(process.name), signal.SIGSTOP)


@pytest.fixture(scope="module")
def study(cluster, tmp_path_factory):
    """Return the study's run, which completed after all the failures."""
    run = Run(cluster, copy_checkout(tmp_path_factory.mktemp("study")))
    # What needs no cluster is made beforehand, since each Slurm job starts Snakemake twice.
    done = [f"results/{kind}/clip_mini/mnist.json" for kind in ("measures", "rehearsals")]
    made = run_snakemake(
        "workflow_scripts/run_study.py", "--study", "study.yaml", "--profile", "profiles/local",
        "--cores", "2", *done, "results/datasets/digits/dataset.json",
        cwd=run.folder, env=cluster.env,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout[-5000:]
    with open(run.printed, "w") as printed:
        first = subprocess.Popen(
            **run.snakemake(), stdout=printed, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        disturb(run)
    finally:  # SIGKILL, so that it cannot cancel its jobs
        first.kill()
        first.wait()
    orphans = cluster.ask("squeue", "-h", "-o", "%A").split()
    refused = run.snakemake("--nolock")
    run.refused = run_snakemake(*refused.pop("args")[1:], **refused)
    run.cleaned = forked.run(
        "workflow_scripts/clean_orphans.py", cwd=run.folder, env=run.cluster.env
    )
    run.orphans, run.left = orphans, cluster.ask("squeue", "-h")
    run.second = subprocess.run(**run.snakemake(), text=True, capture_output=True)
    assert run.second.returncode == 0, run.second.stderr[-5000:]
    return run


def disturb(run):
    """Let a job run out of time, restart the controller, and requeue and cancel a job."""
    ask = run.cluster.ask
    first = run.wait_for("mnist", 1)
    ask("scontrol", "update", f"JobId={first}", "EndTime=now+1")  # Slurm checks every 30 s
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
    """Return the states of a dataset's fine-tuning jobs, in the order of their ids."""
    name = f"rule_finetune_model_wildcards_clip_mini_full_{dataset}_0"
    return [job["JobState"] for job in study.cluster.jobs() if job["Comment"] == name]


def test_slurm_study_completes_with_its_report(study):
    assert (study.folder / "results/report.html").stat().st_size > 500_000


def test_failed_jobs_were_tried_again(study):
    assert states(study, "mnist") == ["TIMEOUT", "CANCELLED", "COMPLETED"]
    assert states(study, "digits") == ["CANCELLED", "CANCELLED", "COMPLETED"]
    assert study.job("digits", 0)["Restarts"] == "1"
    assert study.job("mnist", 1)["TimeLimit"] == "02:00:00"  # twice that of the first attempt
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


def test_orphans_stop_the_next_run_until_they_are_cancelled(study):
    assert len(study.orphans) >= 2 and study.refused.returncode == 1
    assert "make clean-orphans" in study.refused.stdout
    assert "Traceback" not in study.refused.stdout
    assert study.cleaned.returncode == 0 and study.orphans[0] in study.cleaned.stdout
    assert not study.left
    assert jobs(study.second.stderr)["finetune_model"] == 2


def test_resumed_training_gives_the_numbers_of_an_unbroken_run(study, tmp_path):
    for dataset in ("mnist", "digits"):
        resumed = study.folder / f"results/trials/clip_mini/full/{dataset}/0"
        epochs = pd.read_parquet(resumed / "epochs.parquet")
        log = (study.folder / f"logs/finetune_model/clip_mini/full/{dataset}/0.log").read_text()
        first = int(re.search(r"epoch (\d+)/", log)[1])
        assert 1 < first <= EPOCHS, "the last attempt did not resume, it started again"
        # Comparing up to the epoch after the last break is enough: the learning rate is constant.
        unbroken = train_unbroken(study, dataset, first, tmp_path / dataset)
        pd.testing.assert_frame_equal(epochs[NUMBERS][:first], unbroken[NUMBERS], check_exact=True)


NUMBERS = ["epoch", "loss", "val_accuracy", "learning_rate", "ended"]


def train_unbroken(study, dataset, epochs, output):
    """Run the same training outside Slurm without a break, and return its epochs."""
    config = check_config(yaml.safe_load((study.folder / "study.yaml").read_text()))
    full = config["methods"]["full"]
    recipe = {k: v for k, v in full.items() if not isinstance(v, list)} | {"epochs": epochs}
    done = forked.run(
        "workflow_scripts/finetune.py", "--model", "clip_mini", "--method", "full",
        "--dataset-name", dataset, "--model-spec", json.dumps({"folder": "resources/mini/clip"}),
        "--recipe", json.dumps(recipe), "--trials", json.dumps(expand_grid(full)), "--seed", "0",
        "--dataset", f"results/datasets/{dataset}", "--prepared", "results/prepared",
        "--text", f"results/embeddings/clip_mini/{dataset}/text.parquet", "--output", output,
        cwd=study.folder, env=study.cluster.env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return pd.read_parquet(output / "epochs.parquet")
