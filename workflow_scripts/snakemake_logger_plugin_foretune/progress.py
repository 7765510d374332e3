"""Keep the state of a run from Snakemake's log records: its jobs, and the time that is left.

`read_last_lines` reads what a job last wrote into its log.
"""

import inspect
import logging
import re
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any, NamedTuple

from snakemake_interface_logger_plugins.common import LogEvent

from foretune.core.config import check_config
from foretune.core.errors import ForetuneError
from foretune.core.study_file import read_study
from foretune.planning.job_times import JobTimes

BENCHMARKS = Path("logs/benchmarks")
TAIL_BYTES = 4096
# Escape sequences of terminals, and control characters but tab, carriage return and line feed.
CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
SEARCHED_LINES = 20  # of a log, for warnings
KNOWN_SHARE = 0.5  # of the jobs left whose time must be known before a time is given
TARGET = "all"  # a rule that only asks for files


def read_last_lines(path: Path | str, count: int) -> list[str]:
    """Return the last lines of a log that are not blank; none if it cannot be read.

    A carriage return, with which a progress bar starts over, ends a line as well.
    """
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = CONTROL.sub("", text).replace("\r", "\n").split("\n")
    return [line.rstrip() for line in lines if line.strip()][-count:]


def is_command_error(record: logging.LogRecord) -> bool:
    """Return whether a record says that a job's command failed. One about the job follows it."""
    event = getattr(record, "event", None)
    return event == LogEvent.ERROR and "CalledProcessError in file" in record.getMessage()


def read_exit_status(error: str) -> int:
    """Return a command's exit status from Python's error, 128 and the number for a signal."""
    code = re.search(r"exit status (\d+)", error)
    number = re.search(r"died with <Signals\.\w+: (\d+)>", error)
    return int(code[1]) if code else 128 + int(number[1]) if number else 0


@dataclass
class Job:
    rule: str
    name: str
    log: str | None
    started: float  # seconds since the epoch
    status: int = 0  # exit status of its command, if that failed

    def read_log(self, count: int) -> list[str]:
        """Return the last lines of the job's log; none if it has written nothing yet."""
        try:
            # Until the job opens it, there may be the log of an earlier run.
            if not self.log or Path(self.log).stat().st_mtime < self.started - 1:
                return []
        except OSError:
            return []
        return read_last_lines(self.log, count)

    def read_progress(self) -> str:
        """Return the last line of the job's log; "" if it has written nothing yet."""
        return "".join(self.read_log(1))

    def read_warnings(self) -> list[str]:
        """Return the warnings at the end of the job's log."""
        return [line for line in self.read_log(SEARCHED_LINES) if line.startswith("warning: ")]

    def describe_failure(self) -> str:
        """Return what the job said at its end, or which signal ended it."""
        if self.status == 128 + signal.SIGKILL:
            return "It was killed, perhaps because the memory was full."
        if self.status > 128:
            return f"It was ended by signal {self.status - 128}."
        return self.read_progress() or "It wrote no message."


class TimeLeft(NamedTuple):
    seconds: float
    complete: bool  # False if the time of some jobs is not known yet, and so it takes longer


@dataclass
class Progress:
    """The state of a run. `handle` brings it up to date; whoever reads it holds the lock."""

    title: str = ""
    started: float = 0.0
    total: dict[str, int] = field(default_factory=dict)  # jobs by rule, in the workflow's order
    seconds: dict[str, list[float]] = field(default_factory=dict)  # of the jobs done, by rule
    running: dict[int, Job] = field(default_factory=dict)  # by Snakemake's number of the job
    failed: dict[int, Job] = field(default_factory=dict)
    warnings: list[tuple[Job, str]] = field(default_factory=list)  # of jobs that are done
    study: dict[str, Any] = field(default_factory=dict)
    earlier: dict[str, float | None] = field(default_factory=dict)  # see `get_seconds`
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def handle(self, record: logging.LogRecord) -> None:
        """Take in one of Snakemake's records."""
        with self.lock:
            self.update(record)

    def update(self, record: logging.LogRecord) -> None:
        event, facts = getattr(record, "event", None), record.__dict__
        if event == LogEvent.WORKFLOW_STARTED:
            self.read_study(facts.get("configfiles") or [])
        elif event == LogEvent.RUN_INFO:
            self.started = record.created
            self.total = {
                rule: count for rule, count in facts["stats"].items()
                if rule not in ("total", TARGET)
            }  # fmt: skip
        elif event == LogEvent.JOB_INFO and facts["rule_name"] != TARGET:
            rule, number = facts["rule_name"], facts["jobid"]
            log = next(iter(facts["log"]), None)
            name = facts["rule_msg"] or " ".join([rule, *facts["wildcards"].values()])
            self.running[number] = Job(rule, str(name), log, record.created)
            self.failed.pop(number, None)  # it is tried again
        elif event == LogEvent.JOB_FINISHED and facts["job_id"] in self.running:
            job = self.running.pop(facts["job_id"])
            self.seconds.setdefault(job.rule, []).append(record.created - job.started)
            self.warnings += [(job, line) for line in job.read_warnings()]
        elif is_command_error(record):
            text = record.getMessage()
            for job in self.running.values():
                if job.log and job.log in text:  # the command writes this log
                    job.status = read_exit_status(text)
        elif event == LogEvent.JOB_ERROR and facts["jobid"] in self.running:
            job = self.running.pop(facts["jobid"])
            if job.status != 128 + signal.SIGINT:  # the user's Ctrl-C
                self.failed[facts["jobid"]] = job

    def read_study(self, paths: list[str]) -> None:
        try:
            self.study = check_config(read_study(Path(paths[-1])))
            self.title = self.study["title"]
        except (ForetuneError, IndexError):  # Snakemake says what is wrong with it
            pass

    def count_done(self, rule: str | None = None) -> int:
        """Return how many jobs are done, of all rules or of one."""
        return sum(len(seconds) for name, seconds in self.seconds.items() if rule in (None, name))

    def estimate_time_left(self, now: float) -> TimeLeft | None:
        """Return the time left, or None if the time of most jobs left is not known yet.

        A job takes as long as those of its rule that are done, on average, and as many jobs run
        at a time as have until now.
        """
        left = {rule: count - self.count_done(rule) for rule, count in self.total.items()}
        for job in self.failed.values():
            left[job.rule] -= 1
        known, work = 0, 0.0
        for rule, count in left.items():
            each = self.get_seconds(rule) if count > 0 else None
            if each is not None:
                known += count
                running = [now - job.started for job in self.running.values() if job.rule == rule]
                work += count * each - sum(min(each, elapsed) for elapsed in running)
        jobs = sum(count for count in left.values() if count > 0)
        if not jobs or known < KNOWN_SHARE * jobs:
            return None
        spent = sum(sum(seconds) for seconds in self.seconds.values())
        spent += sum(now - job.started for job in self.running.values())
        at_a_time = max(1.0, spent / max(1e-9, now - self.started))
        return TimeLeft(work / at_a_time, known == jobs)

    def get_seconds(self, rule: str) -> float | None:
        """Return the time of a rule's job, from this run, an earlier run or what is known of it."""
        if rule in self.seconds:
            return fmean(self.seconds[rule])
        if rule not in self.earlier:
            self.earlier[rule] = read_earlier_seconds(rule)
            if self.earlier[rule] is None and self.study:
                self.earlier[rule] = assume_seconds(self.study, rule)
        return self.earlier[rule]


def read_earlier_seconds(rule: str) -> float | None:
    """Return the mean time of a rule's jobs in earlier runs in this folder; None if none ran."""
    seconds = []
    for path in [BENCHMARKS / f"{rule}.tsv", *(BENCHMARKS / rule).rglob("*.tsv")]:
        try:
            head, row = (line.split("\t") for line in path.read_text().splitlines()[:2])
            seconds.append(float(row[head.index("s")]))
        except (OSError, ValueError):  # there is none, or it is half written
            continue
    return fmean(seconds) if seconds else None


def assume_seconds(study: dict[str, Any], rule: str) -> float | None:
    """Return what `make plan` assumes for a rule's job if no size or speed has to be known."""
    estimate = getattr(JobTimes, rule, None)
    if estimate is None:
        return 1.0
    if list(inspect.signature(estimate).parameters) != ["self"]:
        return None
    models: Any = SimpleNamespace(costs={}, speeds={})
    return estimate(JobTimes(study, {}, models))
