"""The server that forks a local run's jobs: nothing leaks between jobs, and nothing stays alive."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import job_server
from checkout import CLIP_MINI, ROOT
from smoke import ENV

# Runs its first argument with bash, as Snakemake runs jobs.
PARENT = """
import os, sys
sys.path.insert(0, "workflow_scripts")
from job_server import start_job_server
start_job_server()
os.execvp("bash", ["bash", "-c", sys.argv[1]])
"""
THREADS = dict.fromkeys(job_server.THREADS, "1")


def start(folder, command, **environment):
    """Start a job server in a checkout and a command that can use it."""
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, command], cwd=folder, env=ENV | THREADS | environment,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def run(folder, command, **environment):
    process = start(folder, command, **environment)
    printed, _ = process.communicate(timeout=120)
    return process.returncode, printed


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a server that imports next to nothing, and a script `measure.py`."""
    scripts = tmp_path / "workflow_scripts"
    shutil.copytree(ROOT / "workflow_scripts/warm_start", scripts / "warm_start")
    shutil.copytree(ROOT / "workflow_scripts/foretune/core", scripts / "foretune/core")
    code = (ROOT / "workflow_scripts/job_server.py").read_text()
    code, count = re.subn(r"(?s)MODULES = \(.*?\)", 'MODULES = ("foretune.core.errors",)', code)
    assert count == 1
    (scripts / "job_server.py").write_text(code)
    return tmp_path


def write_job(folder, text):
    (folder / "workflow_scripts/measure.py").write_text(text)
    return "python workflow_scripts/measure.py"


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


IS_SERVED = "import multiprocessing\n" \
    "print('served' if multiprocessing.parent_process() else 'plain')\n"  # fmt: skip


def test_a_job_has_its_arguments_folder_environment_umask_and_streams(folder):
    job = write_job(folder, IS_SERVED + "import os, sys\nprint(sys.argv[1:], os.getcwd(),"
                    " os.environ['X'], oct(os.umask(0)), sys.stdin.read(), __name__)\n"
                    "print('problem', file=sys.stderr)")  # fmt: skip
    (folder / "a b").mkdir()
    code, printed = run(
        folder, f"cd 'a b'; umask 027; echo in | X=1 {job.replace(' ', ' ../')} --a 'b c' 2>err"
    )
    assert code == 0 and (folder / "a b/err").read_text() == "problem\n"
    assert printed == f"served\n['--a', 'b c'] {folder}/a b 1 0o27  __main__\n"


@pytest.mark.parametrize(
    "text, code", [("import sys; sys.exit(3)", 3), ("import sys; sys.exit('error: no')", 1),
                   ("1 / 0", 1), ("import os; os.kill(os.getpid(), 11)", 128 + 11),
                   ("import atexit; atexit.register(print, 'bye')", 0)],
)  # fmt: skip
def test_a_job_ends_as_its_script_does(folder, text, code):
    printed = run(folder, f"{write_job(folder, IS_SERVED + text)}; echo code $?")[1]
    assert printed.startswith("served\n") and printed.endswith(f"code {code}\n")
    assert ("error: no\n" in printed) == (code == 1 and "no" in text)
    assert ("ZeroDivisionError" in printed) == ("/" in text)
    assert ("bye" in printed) == ("bye" in text)


def test_other_scripts_and_other_threads_run_as_plain_python(folder):
    job = write_job(folder, IS_SERVED)
    (folder / "other.py").write_text(IS_SERVED)
    command = f"python other.py; {job}; OMP_NUM_THREADS=2 {job}; python -c 'print(1)'"
    assert run(folder, command) == (0, "plain\nserved\nplain\n1\n")
    assert run(folder, f"FORETUNE_JOB_SERVER=nowhere {job}") == (0, "plain\n")


def test_a_module_that_changed_is_read_again_and_a_job_changes_nothing_for_the_next(folder):
    text = "from foretune.core import errors\nimport json\nprint(errors.TOLD, hasattr(json, 'a'))\n"
    job = write_job(folder, text + "json.a = errors.TOLD = 0")
    module = folder / "workflow_scripts/foretune/core/errors.py"
    append = f"echo 'TOLD = {{}}' >> {module}"
    # A .pyc file remembers the second of a change and its size.
    command = f"{append.format(1)}; {job}; {append.format(22)}; {job}"
    assert run(folder, command) == (0, "1 False\n22 False\n")


@pytest.mark.parametrize("killed", ["client", "server", "parent"])
def test_a_kill_leaves_no_process(folder, killed):
    job = write_job(folder, "import os, time; print(os.getpid(), os.getppid(), flush=True)\n"
                    "time.sleep(100)")  # fmt: skip
    process = start(folder, f"{job} & echo $!; wait $!; echo code $?")
    client, (child, server) = process.stdout.readline().strip(), process.stdout.readline().split()
    victim = {"client": client, "server": server, "parent": process.pid}[killed]
    os.kill(int(victim), signal.SIGKILL)
    printed = process.communicate(timeout=60)[0]
    assert (f"code {128 + 9}\n" in printed) == (killed != "parent")
    assert "Traceback" not in printed
    wait_until(lambda: not any(map(is_alive, (client, child, server, process.pid))))


def test_a_kill_during_the_imports_leaves_no_process(folder):
    """The job must not go on as plain Python: Snakemake may have been killed."""
    server = folder / "workflow_scripts/job_server.py"
    slow = "    import time; open('importing', 'w').close(); time.sleep(60)\n"
    server.write_text(server.read_text().replace("    for name in", f"{slow}    for name in", 1))
    process = start(folder, f"{write_job(folder, IS_SERVED)} & echo $!; wait $!")
    client = process.stdout.readline().strip()
    wait_until((folder / "importing").exists)  # the client waits for an answer
    process.kill()
    assert process.communicate(timeout=60)[0] == ""
    wait_until(lambda: not is_alive(client))


@pytest.mark.parametrize("other", [None, "-e", "--executor=slurm", "--use-conda", "--profile"])
def test_jobs_that_run_elsewhere_get_no_server(other, monkeypatch):
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    options = ["--cores", "2", "--profile", "profiles/local"]
    options += [] if other is None else [other, "profiles/slurm"]
    assert job_server.are_local(options) == (other is None)
    assert job_server.can_serve() == (sys.platform == "linux")
    monkeypatch.setenv("FORETUNE_JOB_SERVER", "off")
    assert not job_server.can_serve()


def test_jobs_give_the_same_bits_in_both_orders_as_plain_python_does(small_task, tmp_path):
    recipe = {
        "optimizer": "sgd", "momentum": 0.9, "epochs": 2, "batch_size": 32,
        "schedule": "constant", "warmup_epochs": 0, "label_smoothing": 0, "ratio": 0.2,
    }  # fmt: skip
    trials = [{"trial": 0, "learning_rate": 0.1, "weight_decay": 0.1, "reduction": 4}]
    task = f"--seed 0 --model clip_mini --dataset {small_task}/dataset"
    embeddings = f"--embeddings {small_task}/embeddings"
    jobs = [
        f"python workflow_scripts/measure.py {task} {embeddings} --output $OUT/measures.json "
        """--options '{"bootstrap": 8}'""",
        f"python workflow_scripts/embed_captions.py --model-spec '{json.dumps(CLIP_MINI)}' "
        f"--dataset {small_task}/dataset --output $OUT/text.parquet",
        f"python workflow_scripts/fit_cached.py {task} {embeddings} --output $OUT/fit "
        f"--method clip_adapter --dataset-name mnist --recipe '{json.dumps(recipe)}' "
        f"--trials '{json.dumps(trials)}'",
    ]
    # One server runs all but the plain jobs. Some outputs hold their path, so it is always `out`.
    commands = ["set -e", "server=$FORETUNE_JOB_SERVER"]
    for name, order, server in (
        ("forth", jobs, "$server"), ("back", jobs[::-1], "$server"), ("plain", jobs, "nowhere"),
    ):  # fmt: skip
        commands += [f"export FORETUNE_JOB_SERVER={server}", "mkdir $OUT", *order]
        commands.append(f"mv $OUT {tmp_path / name}")
    code, printed = run(ROOT, "; ".join(commands), OUT=str(tmp_path / "out"))
    assert code == 0, printed
    # epochs.parquet has the seconds that each epoch took.
    plain = [
        path
        for path in (tmp_path / "plain").rglob("*")
        if path.is_file() and path.name != "epochs.parquet"
    ]
    assert len(plain) >= 4
    for path in plain:
        for name in ("forth", "back"):
            other = tmp_path / name / path.relative_to(tmp_path / "plain")
            assert other.read_bytes() == path.read_bytes(), other
