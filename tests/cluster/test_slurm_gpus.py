"""Submit each form of the profile's request for GPUs to a real Slurm that is set up for it."""

import shlex
import subprocess
from types import SimpleNamespace

import pytest
import yte
from snakemake_executor_plugin_slurm.utils import set_gres_string
from snakemake_executor_plugin_slurm.validation import validate_slurm_extra

import slurm_cluster
from checkout import ROOT
from foretune.core.errors import ForetuneError
from foretune.core.slurm import request_gpus
from real_parts import refuse_missing

HYPHENS = "a100-sxm4-80gb"


class Resources(dict):
    def __getattr__(self, name):
        if name in self:
            return self[name]
        raise AttributeError(name)


def get_options(request):
    """Return the options of sbatch that Snakemake makes of a GPU job's resources."""
    resources = Resources({"gpu": 1, **request})
    job = SimpleNamespace(resources=resources)
    validate_slurm_extra(job)
    return f"{set_gres_string(job)} {resources.get('slurm_extra', '')}".strip()


@pytest.mark.parametrize(
    ("kind", "option", "expected"),
    [
        ("", "gpus", "--gpus=1"),
        ("a100", "gpus", "--gpus=a100:1"),
        (HYPHENS, "gpus", f"--gpus-per-node={HYPHENS}:1 --exclude=n7"),
        ("", "gres", "--gres=gpu:1"),
        ("a100_80gb.v2", "gres", "--gres=gpu:a100_80gb.v2:1"),
    ],
)
def test_request_gpus_passes_the_checks_of_snakemakes_plugin(kind, option, expected):
    assert get_options(request_gpus(kind, option, "--exclude=n7")) == expected


@pytest.mark.parametrize(
    ("kind", "option", "message"),
    [
        (HYPHENS, "gres", "because of its hyphen"),
        ("a100:4", "gpus", "no name of a kind of GPU"),
        ("a100", "tres", "neither gpus nor gres"),
    ],
)
def test_request_gpus_refuses_what_cannot_pass(kind, option, message, monkeypatch):
    with pytest.raises(ForetuneError, match=message):
        request_gpus(kind, option, "")
    profile = (ROOT / "profiles/slurm/config.yaml").read_text()
    profile = profile.replace('gpu_type: ""', f'gpu_type: "{kind}"')
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match=f"error: profiles/slurm/config.yaml: .*{message}"):
        yte.process_yaml(
            profile.replace("gpu_option: gpus", f"gpu_option: {option}"), require_use_yte=True
        )


@pytest.mark.parametrize(
    ("select", "gpu", "option", "requested"),
    [
        ("cons_tres", HYPHENS, "gpus", f"gres:gpu:{HYPHENS}:1"),
        ("linear", "fake", "gres", "gres:gpu:fake:1"),
        ("linear", "", "gres", "gres:gpu:1"),
    ],
)
def test_slurm_runs_a_job_that_asks_for_a_gpu_in_its_way(select, gpu, option, requested, tmp_path):
    refuse_missing(slurm_cluster.missing() and f"Slurm is missing: {slurm_cluster.INSTALL}")
    cluster = slurm_cluster.Cluster(tmp_path / "slurm", select=select, gpu=gpu or "fake")

    def submit(*options):
        return subprocess.run(
            ["sbatch", "--wait", "--partition=gpu", "--mem=100", "--output", tmp_path / "out",
             *options, "--wrap", "echo GPU=$CUDA_VISIBLE_DEVICES"],
            env=cluster.env, cwd=tmp_path, text=True, capture_output=True,
        )  # fmt: skip

    try:
        cluster.start()
        done = submit(*shlex.split(get_options(request_gpus(gpu, option, ""))))
        assert done.returncode == 0, done.stderr
        job = cluster.jobs()[-1]
        assert (job["JobState"], job["TresPerNode"]) == ("COMPLETED", requested)
        # select/linear, for which gpu_option exists, tells no job of this cluster its GPU.
        if select == "linear":
            assert "Requested GRES option unsupported" in submit("--gpus=1").stderr
        else:
            assert (tmp_path / "out").read_text() in ("GPU=0\n", "GPU=1\n")
    finally:
        cluster.stop()
