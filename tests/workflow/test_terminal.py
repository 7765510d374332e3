"""Real runs in a pseudo-terminal and without one: one of two datasets is no Parquet file."""

import os
import pty
import re
import subprocess
import threading

import pytest
import yaml

from smoke import COMMAND, NO_SERVER, run_snakemake

TARGETS = ["results/datasets/digits/dataset.json", "results/datasets/mnist/dataset.json"]
ERROR = "error: broken.parquet: "


@pytest.fixture
def command(checkout):
    study = yaml.safe_load((checkout / "studies/smoke.yaml").read_text())
    study["datasets"]["mnist"] = {"parquet": "broken.parquet"}
    (checkout / "broken.parquet").write_text("no Parquet file")
    (checkout / "broken.yaml").write_text(yaml.safe_dump(study))
    return [*COMMAND[:-1], "broken.yaml", *TARGETS]


def run_in_terminal(command, folder):
    """Return a command's exit code and what a pseudo-terminal got from it."""
    master, slave = pty.openpty()
    env = {name: value for name, value in NO_SERVER.items() if name != "CI"} | {"TERM": "xterm"}
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdin=slave, stdout=slave, stderr=slave,
        start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    chunks = []

    def read():
        try:
            while chunk := os.read(master, 65536):
                chunks.append(chunk)
        except OSError:  # EIO at the end
            pass

    reader = threading.Thread(target=read)
    reader.start()
    code = process.wait()
    reader.join()
    os.close(master)
    return code, b"".join(chunks).decode()


def test_terminal_gets_a_display_and_a_pipe_gets_lines(command, checkout):
    code, printed = run_in_terminal(command, checkout)
    assert code == 1 and "\x1b[?25l" not in printed  # the cursor is never hidden
    # The display is redrawn from the line that the cursor was moved up to.
    drawn = re.sub(r"\x1b\[\d*A", "\n", printed)
    drawn = re.sub(r"\x1b\[[\d;]*[A-Za-z]|\r", "", drawn)
    lines = [line.rstrip() for line in drawn.splitlines()]
    failure = lines.index("✗ Splitting mnist into train, val and test")
    assert lines[failure + 1].startswith(f"    {ERROR}"), lines
    assert "    logs/prepare_dataset/mnist.log" in lines[failure:]
    end = lines.index("foretune · smoke study", -5)
    assert re.fullmatch(r"1/2 jobs · 1 failed · \d+ s", lines[end + 1])
    assert re.fullmatch(r"✗ prepare datasets [ ━╸]+ 1/2 1 failed", lines[end + 2])
    assert lines[end + 3].startswith("Jobs: 1 failed. What is done stays")
    assert "Finished jobid" not in printed and "tee" not in printed
    # What would have been printed is in a file, besides the jobs' own logs.
    log = (checkout / "logs/run.log").read_text()
    assert "10 classes" in log and ERROR in log and "Error in rule prepare_dataset:" in log
    assert "10 classes" in (checkout / "logs/prepare_dataset/digits.log").read_text()
    plain = run_snakemake(*command[1:], cwd=checkout, env=NO_SERVER, merged=False)
    printed = plain.stdout + plain.stderr
    assert plain.returncode == 1 and "Error in rule prepare_dataset:" in printed
    assert ERROR in plain.stdout  # the job's own output
    assert ERROR in plain.stderr and "log: logs/prepare_dataset/mnist.log" in plain.stderr
    # Neither the job's command is printed nor that its output is missing.
    assert "tee" not in printed and "MissingOutputException" not in printed
    assert (checkout / "logs/run.log").read_text() == log
