"""Check the Kubernetes profile with a real S3 server.

We test the dry run and local jobs on files in the bucket, not a real cluster.
"""

import re
import shutil
import socket

import boto3
import pytest
import yaml

from smoke import ENV, jobs, run_snakemake

KEYS = {"SNAKEMAKE_STORAGE_S3_ACCESS_KEY": "test", "SNAKEMAKE_STORAGE_S3_SECRET_KEY": "test"}


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """Yield the address of an S3 server that has the profile's bucket, and a client of it."""
    from moto.server import ThreadedMotoServer

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    address = f"http://127.0.0.1:{port}"
    client = boto3.client(
        "s3", endpoint_url=address, region_name="us-east-1",
        aws_access_key_id="test", aws_secret_access_key="test",
    )  # fmt: skip
    client.create_bucket(Bucket="foretune")
    yield address, client
    server.stop()


def run(checkout, s3, *arguments):
    profile = checkout / "profiles/kubernetes/config.yaml"
    text = re.sub('endpoint: ""', f"endpoint: {s3[0]}", profile.read_text())
    profile.write_text(text)
    command = ["-m", "snakemake", "--profile", "profiles/kubernetes",
               "--configfile", "studies/smoke.yaml", *arguments]  # fmt: skip
    done = run_snakemake(*command, cwd=checkout, env={**ENV, **KEYS})
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def test_kubernetes_profile_plans_the_study(checkout, s3):
    # Of one dataset and method, because Snakemake asks the server for every file.
    path = checkout / "studies/smoke.yaml"
    study = yaml.safe_load(path.read_text())
    for room, name in (("datasets", "digits"), ("methods", "full")):
        study[room] = {name: study[room][name]}
    path.write_text(yaml.safe_dump(study))
    printed = run(checkout, s3, "-n")
    assert jobs(printed)["finetune_model"] == 1 and jobs(printed)["write_report"] == 1
    assert "s3://foretune/study/results/report.html" in printed
    assert "gpu=1" in printed and "gpu_manufacturer=nvidia" in printed


@pytest.mark.slow
def test_study_runs_with_its_files_in_the_bucket(checkout, s3):
    """It is the smoke study with a sharded dataset and a forecast from the bundled study."""
    path = checkout / "studies/smoke.yaml"
    study = yaml.safe_load(path.read_text())
    study["datasets"]["digits"]["shards"] = 2
    letters = {"letters": {"parquet": "resources/mini/letters.parquet"}}
    study["forecast"] = {"datasets": letters, "study": "resources/mini/study"}
    path.write_text(yaml.safe_dump(study))
    run(checkout, s3, "--executor", "local", "--cores", "2")
    shutil.rmtree(checkout / "results", ignore_errors=True)
    _, client = s3
    objects = client.list_objects_v2(Bucket="foretune", Prefix="study/results/")["Contents"]
    sizes = {file["Key"].removeprefix("study/results/"): file["Size"] for file in objects}
    assert sizes["report.html"] > 500_000 and "forecast/forecasts.parquet" in sizes
    assert "Nothing to be done" in run(checkout, s3, "--executor", "local", "--cores", "2")
