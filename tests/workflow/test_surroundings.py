"""A study's first job in odd surroundings: foreign packages, no reader, no home, a user unknown."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml

import forked
import run_study
from checkout import ROOT
from foretune.core.errors import ForetuneError
from smoke import COMMAND, ENV, NO_SERVER, run_snakemake

TARGET = "results/datasets/digits/dataset.json"


def test_study_goes_on_among_foreign_packages_without_a_home_and_a_reader(checkout):
    foreign = checkout / "foreign/numpy"  # as of a cluster's module
    foreign.mkdir(parents=True)
    (foreign / "__init__.py").write_text("raise ImportError('a foreign numpy')")
    home = checkout / "home"
    home.write_text("cannot be a folder")
    # As with `| head -1`, nobody reads what is printed.
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, TARGET], cwd=checkout, text=True, stdout=writer, stderr=subprocess.PIPE,
        env={**NO_SERVER, "PYTHONPATH": str(foreign.parent), "HOME": str(home)},
    )  # fmt: skip
    os.close(writer)
    assert done.returncode == 0, done.stderr
    assert (checkout / TARGET).exists()
    assert "10 classes" in (checkout / "logs/prepare_dataset/digits.log").read_text()


@pytest.mark.parametrize("kind", ["file", "link", "unwritable"])
def test_results_that_cannot_be_used_are_refused_in_one_line(kind, checkout):
    results = checkout / "results"
    if kind == "file":
        results.write_text("")
    elif kind == "link":
        results.symlink_to(checkout / "nowhere")
    elif os.getuid() == 0:
        pytest.skip("root may write to any folder")
    else:
        results.mkdir(mode=0o555)
    done = forked.run(*COMMAND[1:], TARGET, cwd=checkout, env=ENV)
    expected = {
        "file": "error: results is no folder; remove or rename it\n",
        "link": "error: results is a link that leads nowhere; remove or rename it\n",
        "unwritable": f"error: {results}: it may not be read or written; change its permissions "
        "or its owner\n",
    }
    assert (done.returncode, done.stderr) == (1, expected[kind])


def test_set_user_gives_a_cache_to_a_user_without_a_home(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for name in ("XDG_CACHE_HOME", "HF_HOME"):
        monkeypatch.setenv(name, "")  # so that the test's end restores it
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    run_study.set_user()
    assert "XDG_CACHE_HOME" not in os.environ and (tmp_path / "home/.cache/snakemake").is_dir()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    run_study.set_user()
    assert os.environ["XDG_CACHE_HOME"] == str(tmp_path / ".snakemake/cache")
    assert os.environ["HF_HOME"] == str(tmp_path / "file/.cache/huggingface")


@pytest.mark.parametrize("folder", ["a:b", "{model}"])
def test_set_path_refuses_a_checkout_that_no_path_can_name(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(run_study, "__file__", str(tmp_path / folder / "scripts/run_study.py"))
    monkeypatch.setenv("PATH", "/bin")
    with pytest.raises(ForetuneError, match=r"in the path of foretune's folder; rename it"):
        run_study.set_path()
    monkeypatch.setattr(run_study, "__file__", str(tmp_path / "my $x 'y'/scripts/run_study.py"))
    run_study.set_path()
    assert os.environ["PATH"] == f"{os.path.dirname(sys.executable)}:/bin"


def test_ctrl_c_while_snakemake_starts_prints_no_traceback():
    interrupted = "import sys, types, signal\n" \
        "def main(): signal.raise_signal(signal.SIGINT)\n" \
        "for name in ('snakemake', 'snakemake.settings'):\n" \
        "    sys.modules[name] = types.ModuleType(name)\n" \
        "limits = types.SimpleNamespace(MaxJobsPerTimespan=type('Limit', (), {}))\n" \
        "sys.modules['snakemake.settings.types'] = limits\n" \
        "sys.modules['snakemake.cli'] = types.SimpleNamespace(main=main)\n"  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", interrupted + run_study.START], text=True, capture_output=True,
        cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "")


def test_snakemake_starts_no_timer_for_each_job(tmp_path):
    (tmp_path / "Snakefile").write_text(
        "import threading\n"
        "rule all:\n    input: expand('{n}', n=range(4))\n"
        "rule make:\n    output: '{n}'\n    shell: 'touch {output}'\n"
        "onsuccess:\n    timers = [t for t in threading.enumerate() if hasattr(t, 'interval')]\n"
        "    print('timers:', len(timers))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", run_study.START, "--cores", "1"], text=True, cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert "timers: 0" in done.stdout, done.stdout
    assert all((tmp_path / str(n)).exists() for n in range(4))


def test_embeddings_in_a_folder_of_any_name_are_measured(checkout):
    folder = checkout / "my $data; touch here & 'it' \"(1)\""
    folder.mkdir()
    numbers = np.random.default_rng(0)
    np.save(folder / "x.npy", numbers.normal(size=(50, 8)).astype(np.float32))
    np.save(folder / "t.npy", numbers.normal(size=(3, 8)).astype(np.float32))
    np.save(folder / "y.npy", np.arange(50) % 3)
    study = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    files = {"images": "x.npy", "texts": "t.npy", "labels": "y.npy"}
    study["embeddings"] = {"mine": {name: str(folder / file) for name, file in files.items()}}
    study["measures"] = {"bootstrap": 0}
    (folder / "my study.yaml").write_text(yaml.safe_dump(study))
    command = [*COMMAND[1:-1], str(folder / "my study.yaml"), "results/measures/mine.json"]
    done = run_snakemake(*command, cwd=checkout, env=NO_SERVER)
    assert done.returncode == 0, done.stdout
    assert json.loads((checkout / "results/measures/mine.json").read_text())["measures"]
    assert not (checkout / "here").exists()


def test_braces_in_the_path_of_an_input_are_refused_in_words(checkout):
    study = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    (checkout / "{folder}").mkdir()
    shutil.copy(checkout / "resources/mini/digits.parquet", checkout / "{folder}")
    study["datasets"]["digits"] = {"parquet": "{folder}/digits.parquet"}
    (checkout / "study.yaml").write_text(yaml.safe_dump(study))
    done = run_snakemake(*COMMAND[1:-1], "study.yaml", "-n", cwd=checkout)
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert "{folder}/digits.parquet: Snakemake takes a name in braces" in done.stdout
