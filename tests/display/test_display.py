"""Tests of the display: the state of a run, the drawn view, and the plain lines."""

import io
import logging
import os
import re
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console
from snakemake_interface_logger_plugins.common import LogEvent

import snakemake_logger_plugin_foretune as plugin
from checkout import ROOT
from snakemake_logger_plugin_foretune.display import STEPS, View, describe_time_left
from snakemake_logger_plugin_foretune.progress import Progress, TimeLeft, read_last_lines

NAMES = {"mnist": "Fine-tuning clip on mnist with full", "digits": "Embedding digits with clip"}
KILLED = (
    'RuleException:\nCalledProcessError in file "finetune.smk", line 48:\n'
    "Command 'python finetune.py | tee full.log' returned non-zero exit status {}."
)


def record(event=None, message="", created=0.0, level=logging.INFO, **facts):
    """Return a record as Snakemake makes it."""
    made = logging.LogRecord("snakemake", level, "", 0, message, None, None)
    made.created = created
    vars(made).update(facts, event=event)
    return made


def starts(number, rule, name="", created=0.0, log=(), **wildcards):
    return record(
        LogEvent.JOB_INFO, created=created, jobid=number, rule_name=rule, rule_msg=name,
        log=list(log), wildcards=wildcards, reason="", indent=False,
    )  # fmt: skip


def finishes(number, created=0.0):
    return record(LogEvent.JOB_FINISHED, created=created, job_id=number)


def fails(number, rule="finetune_model", log=("full.log",)):
    return record(LogEvent.JOB_ERROR, jobid=number, rule_name=rule, log=list(log))


def command_fails(status, level=logging.ERROR):
    return record(LogEvent.ERROR, KILLED.format(status), level=level)


@pytest.fixture
def progress(tmp_path, monkeypatch):
    """Return a run that began at second 1000: two of three embedded, and two jobs under way."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.time", lambda: 1030.0)
    progress = Progress(title="a study")
    stats = {"embed_images": 3, "finetune_model": 6, "write_report": 1, "all": 1, "total": 11}
    for each in (
        record(LogEvent.RUN_INFO, created=1000, stats=stats),
        starts(1, "embed_images", created=1000),
        starts(2, "embed_images", created=1000),
        finishes(1, 1010),
        finishes(2, 1020),
        starts(3, "finetune_model", NAMES["mnist"], 1020, ["full.log"]),
        starts(4, "embed_images", NAMES["digits"], 1020),
        starts(5, "all"),
    ):
        progress.handle(each)
    return progress


def draw(progress, width=100, height=24, ended=False):
    """Return the lines of the display."""
    console = Console(file=io.StringIO(), width=width, height=height, record=True)
    view = View(progress)
    view.ended = ended
    console.print(view)
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_display_shows_steps_and_the_jobs_that_run(progress, tmp_path):
    (tmp_path / "full.log").write_text("mnist full  epoch 2/10\rmnist [b]full[/b]  epoch 3/10\n\n")
    lines = draw(progress)
    assert lines[:2] == ["foretune · a study", "2/10 jobs · 30 s"]
    steps = [re.sub(" *[━╸╺]* +", " ", line).strip() for line in lines[2:5]]
    assert steps == [
        "embed images 2/3 1 running", "fine-tune models 0/6 1 running", "write report 0/1"
    ]  # fmt: skip
    assert lines[6:] == [
        f"▸ {NAMES['mnist']}  10 s", "    mnist [b]full[/b]  epoch 3/10",
        f"▸ {NAMES['digits']}  10 s", "    starting",
    ]  # fmt: skip


def test_steps_are_named_after_rules_that_exist():
    rules = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    assert set(STEPS) <= set(re.findall(r"^(?:rule|use rule \w+ as) (\w+)", rules, re.M))


def test_display_fits_a_small_terminal(progress):
    for number in range(10, 30):
        progress.handle(starts(number, "finetune_model", "x" * 100, 1025))
    lines = draw(progress, width=60, height=12)
    assert len(lines) <= 12 and max(map(len, lines)) <= 60
    assert lines[2] == "steps done: 0, steps to come: 1" and lines[-1] == "▸ and 18 more"
    assert lines[-2] == f"▸ {'x' * 52}…  5 s"


def test_display_ends_without_the_jobs_and_the_time_left(progress):
    lines = draw(progress, ended=True)
    assert len(lines) == 5 and "running" not in "".join(lines)


def test_failed_job_is_counted_until_it_is_tried_again(progress):
    progress.handle(command_fails(1))
    progress.handle(fails(3))
    lines = draw(progress)
    assert lines[1].startswith("2/10 jobs · 1 failed") and lines[3].startswith("✗ fine-tune models")
    assert lines[3].endswith("0/6 1 failed")
    progress.handle(starts(3, "finetune_model", created=1030))
    assert not progress.failed and len(progress.running) == 2


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (1, "error: a row is not finite"),
        (137, "It was killed, perhaps because the memory was full."),
        (143, "It was ended by signal 15."),
    ],
)
def test_failure_is_described_by_the_log_or_the_signal(status, text, progress, tmp_path):
    (tmp_path / "full.log").write_text("epoch 1\nerror: a row is not finite\n")
    progress.handle(command_fails(status))
    progress.handle(fails(3))
    assert progress.failed[3].describe_failure() == text


def test_job_that_the_user_interrupts_has_not_failed(progress):
    text = KILLED.replace("returned non-zero exit status {}.", "died with <Signals.SIGINT: 2>.")
    progress.handle(record(LogEvent.ERROR, text, level=logging.ERROR))
    progress.handle(fails(3))
    assert not progress.failed and 3 not in progress.running


def test_log_of_an_earlier_run_is_not_shown(progress, tmp_path):
    (tmp_path / "full.log").write_text("an old line\n")
    os.utime(tmp_path / "full.log", (900, 900))
    assert progress.running[3].read_progress() == ""


def test_warnings_of_a_job_that_is_done_are_kept(progress, tmp_path):
    (tmp_path / "full.log").write_text("warning: two classes are one\nepoch 1\n")
    progress.handle(finishes(3, 1040))
    ((job, line),) = progress.warnings
    assert job.name == NAMES["mnist"] and line == "warning: two classes are one"


def test_read_last_lines_drops_what_a_terminal_would_obey(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"x" * 5000 + b"\n\x1b[31mred\x1b[0m\xff\n\n  10%|#\r  20%|##\x07")
    assert read_last_lines(path, 3) == ["red\ufffd", "  10%|#", "  20%|##"]
    assert read_last_lines(tmp_path / "none", 3) == []


def test_time_left_follows_from_jobs_that_are_done(progress):
    # Of eight jobs that are left, one embeds for 15 s, of which 10 are over.
    assert progress.estimate_time_left(1030) is None
    progress.handle(finishes(3, 1030))
    left = progress.estimate_time_left(1030)
    assert left.complete is False  # nothing tells how long write_report takes
    work, at_a_time = 5 + 5 * 10, (10 + 20 + 10 + 10) / 30
    assert left.seconds == pytest.approx(work / at_a_time)


def test_time_left_knows_earlier_runs_and_the_plan(progress, tmp_path):
    folder = tmp_path / "logs/benchmarks/finetune_model/clip"
    folder.mkdir(parents=True)
    (folder / "a.tsv").write_text("s\th:m:s\n20.0\t0:00:20\n")
    (folder / "b.tsv").write_text("s\th:m")  # half written
    progress.study = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    left = progress.estimate_time_left(1030)
    report = 10 + 0.05 * 2  # seconds, in planning/job_times.py
    work, at_a_time = 5 + 6 * 20 - 10 + report, (10 + 20 + 10 + 10) / 30
    assert left.complete and left.seconds == pytest.approx(work / at_a_time)


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (None, ""),
        (TimeLeft(20, True), "less than a minute left"),
        (TimeLeft(20, False), ""),
        (TimeLeft(540, True), "about 9 min left"),
        (TimeLeft(540, False), "more than 9 min left"),
        (TimeLeft(3900, True), "about 1 h 5 min left"),
        (TimeLeft(7200, True), "about 2 h left"),
        (TimeLeft(200 * 3600 + 300, True), "about 200 h left"),
    ],
)
def test_describe_time_left_rounds(left, text):
    assert describe_time_left(left) == text


@pytest.mark.parametrize(
    ("variables", "terminal", "redrawn"),
    [
        ({}, True, True),
        ({"NO_COLOR": "1"}, True, True),  # it asks for no colours, and gets none
        ({}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({"TERM": None}, True, False),
        ({"CI": "true"}, True, False),
    ],
)
def test_display_is_for_terminals(variables, terminal, redrawn, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    assert plugin.can_redraw(SimpleNamespace(isatty=lambda: terminal)) == redrawn


def test_plain_lines_show_a_failed_jobs_log_instead_of_its_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full.log").write_text("".join(f"line {i}\n" for i in range(20)))
    settings = SimpleNamespace(stdout=False, dryrun=False, verbose=False, quiet=None, nocolor=True)
    handler = plugin.LogHandler(settings, None)
    for each in (
        record(message="Building DAG of jobs..."),
        starts(3, "finetune_model", NAMES["mnist"], 0, ["full.log"]),
        command_fails(1),
        fails(3),
    ):
        handler.handle(each)
    handler.close()
    printed = capsys.readouterr().err
    assert printed.startswith("Building DAG of jobs...\n") and "python finetune.py" not in printed
    expected = [
        "Error in rule finetune_model:", f"    {NAMES['mnist']}",
        "    log: full.log, which ends with:", *(f"        line {i}" for i in range(10, 20)),
    ]  # fmt: skip
    assert printed.splitlines()[-len(expected) :] == expected
    assert not (tmp_path / "logs").exists()
