"""The display: a study's steps, the jobs that run and the time left, redrawn twice a second."""

import logging
import time
from collections.abc import Iterator
from typing import TextIO

from rich.console import (
    Console,
    ConsoleOptions,
    Group,
    RenderableType,
    RenderResult,
)
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from snakemake_interface_logger_plugins.common import LogEvent

from foretune.planning.plan import format_duration
from snakemake_logger_plugin_foretune.progress import TARGET, Job, Progress, TimeLeft

# Steps whose name is not plain enough. Others are named after their rule.
STEPS = {
    "analyze_study": "analyze the study",
    "evaluate_adapter": "test adapters",
    "evaluate_finished_models": "test finished models",
    "evaluate_model": "test fine-tuned models",
    "evaluate_probe": "test probes",
    "evaluate_zero_shot": "test zero-shot models",
    "finetune_model": "fine-tune models",
    "fit_cached": "train on embeddings",
    "measure_task": "measure tasks",
    "prepare_dataset": "prepare datasets",
    "prepare_shifted_test": "prepare shifted tests",
    "pilot_model": "run pilots",
    "rehearse_task": "rehearse tasks",
    "select_trial": "select trials",
}
# Of Snakemake's remarks, those that tell of something that the user did or has to know.
REMARKS = ("Building DAG", "Nothing to be done", "Terminating", "Trying to restart", "Will exit")

# Errors that only say that jobs failed.
REPEATED = ("At least one job", "Exiting because a job", "WorkflowError:\nAt least one job")


def get_step(rule: str) -> str:
    return STEPS.get(rule, rule.replace("_", " "))


def format_elapsed(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 59.5 else format_duration(seconds)


def describe_time_left(left: TimeLeft | None) -> str:
    """Return the time left in words, rounded; "" if it is not known."""
    if left is None:
        return ""
    minutes = round(left.seconds / 60)
    if minutes < 1:
        return "less than a minute left" if left.complete else ""
    hours, rest = divmod(minutes, 60)
    if hours >= 10:
        rest = 0
    text = f"{hours} h {rest} min" if hours and rest else f"{hours} h" if hours else f"{rest} min"
    return f"{'about' if left.complete else 'more than'} {text} left"


def make_line(text: str, style: str = "") -> Text:
    """Return a line that is cut at the console's width."""
    return Text(text, style, no_wrap=True, overflow="ellipsis")


class View:
    """Renders the state of a run to the size of the console."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.ended = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self.progress.lock:
            lines = list(self.render(console.size.height, options.max_width))
        yield from lines

    def render(self, height: int, width: int) -> Iterator[RenderableType]:
        progress, now = self.progress, time.time()
        yield make_line(f"foretune · {progress.title}".rstrip(" ·"), "bold")
        yield self.describe_counts(now)
        jobs = [] if self.ended else list(progress.running.values())
        room = height - 4
        steps = list(progress.total)
        if len(steps) + 2 * len(jobs) > room:
            started = {job.rule for job in [*jobs, *progress.failed.values()]}
            steps = [rule for rule in steps if rule in started or self.is_half_done(rule)]
            done = sum(map(self.is_done, set(progress.total) - set(steps)))
            follow = len(progress.total) - len(steps) - done
            yield make_line(f"steps done: {done}, steps to come: {follow}", "dim")
            room -= 1
        yield self.tabulate_steps(steps)
        if jobs:
            yield Text("")
            yield from self.list_jobs(jobs, room - len(steps), now, width)

    def describe_counts(self, now: float) -> Text:
        progress = self.progress
        parts = [f"{progress.count_done()}/{sum(progress.total.values())} jobs"]
        if progress.failed:
            parts.append(f"{len(progress.failed)} failed")
        parts.append(format_elapsed(now - progress.started))
        if not self.ended:
            parts.append(describe_time_left(progress.estimate_time_left(now)))
        return make_line(" · ".join(filter(None, parts)))

    def is_done(self, rule: str) -> bool:
        return self.progress.count_done(rule) == self.progress.total[rule]

    def is_half_done(self, rule: str) -> bool:
        return 0 < self.progress.count_done(rule) < self.progress.total[rule]

    def tabulate_steps(self, steps: list[str]) -> Table:
        progress = self.progress
        table = Table.grid(padding=(0, 1), expand=True)
        for options in ({}, {"no_wrap": True}, {"ratio": 1}, {"justify": "right"}, {}):
            table.add_column(**options)
        for rule in steps:
            total, done = progress.total[rule], progress.count_done(rule)
            running = sum(job.rule == rule for job in progress.running.values())
            failed = sum(job.rule == rule for job in progress.failed.values())
            state = Text()
            if failed:
                state.append(f"{failed} failed ", "red")
            if running and not self.ended:
                state.append(f"{running} running")
            mark = (
                Text("✗", "red") if failed else Text("✓", "green") if done == total else Text(" ")
            )
            bar = ProgressBar(total, done, width=None, complete_style="blue")
            table.add_row(mark, get_step(rule), bar, f"{done}/{total}", state)
        return table

    def list_jobs(
        self, jobs: list[Job], room: int, now: float, width: int
    ) -> Iterator[RenderableType]:
        """Yield each job that runs, with the last line of its log if all of them have room."""
        with_lines = 2 * len(jobs) <= room
        shown = jobs if len(jobs) <= room else jobs[: max(0, room - 1)]
        for job in shown:
            elapsed = format_elapsed(now - job.started)
            name = Text(f"▸ {job.name}", no_wrap=True)
            name.truncate(max(1, width - len(elapsed) - 2), overflow="ellipsis")
            yield name.append(f"  {elapsed}", "dim")
            if with_lines:
                yield Text(
                    f"    {job.read_progress() or 'starting'}",
                    "dim",
                    no_wrap=True,
                    overflow="ellipsis",
                )
        if len(shown) < len(jobs):
            yield Text(f"▸ and {len(jobs) - len(shown)} more")


class Terminal(Console):
    """A console that never hides the cursor: a killed process could not show it again."""

    def show_cursor(self, show: bool = True) -> bool:
        return False


class Display:
    """Draws a run's progress in a terminal, and prints failures above it."""

    def __init__(self, progress: Progress, stream: TextIO):
        self.progress = progress
        self.view = View(progress)
        self.shown: set[str] = set()  # remarks, some of which Snakemake repeats
        self.goal = ""  # what the rule that asks for everything says
        self.console = Terminal(file=stream, highlight=False)
        self.live = Live(
            self.view, console=self.console, refresh_per_second=2, redirect_stdout=False,
            redirect_stderr=False, vertical_overflow="crop",
        )  # fmt: skip

    def handle(self, record: logging.LogRecord) -> None:
        """Show one of Snakemake's records, which `progress` has taken in."""
        event = getattr(record, "event", None)
        if event == LogEvent.RUN_INFO and self.progress.total:
            self.live.start()
        elif event == LogEvent.JOB_INFO and record.__dict__["rule_name"] == TARGET:
            self.goal = record.__dict__["rule_msg"] or ""
        elif event == LogEvent.JOB_ERROR:
            job = self.progress.failed.get(record.__dict__["jobid"])
            if job:
                self.print_failure(job)
        elif event == LogEvent.JOB_FINISHED:
            while self.progress.warnings:
                job, line = self.progress.warnings.pop(0)
                self.console.print(Text(f"! {job.name}", "yellow"))
                self.console.print(Padding(Text(line), (0, 0, 0, 4), expand=False))
        elif event in (None, LogEvent.ERROR):
            message = record.getMessage()
            if message.startswith(REPEATED):
                return
            if record.levelno >= logging.ERROR:
                self.console.print(Text(message, "red"))
            elif record.levelno >= logging.WARNING or message.startswith(REMARKS):
                if message not in self.shown:
                    self.console.print(Text(message))
                self.shown.add(message)

    def print_failure(self, job: Job) -> None:
        lines = "\n".join(filter(None, [job.describe_failure(), job.log]))
        details = Padding(Text(lines), (0, 0, 0, 4), expand=False)
        self.console.print(Group(Text(f"✗ {job.name}", "red"), details))

    def close(self) -> None:
        """Draw the end, and say what is left to do."""
        if not self.live.is_started:
            return
        self.view.ended = True
        self.live.stop()
        failed = len(self.progress.failed)
        left = sum(self.progress.total.values()) - self.progress.count_done() - failed
        if not left and not failed:
            self.console.print(Text(self.goal))
            return
        ends = [f"{failed} failed"] * bool(failed) + [f"{left} not run"] * bool(left)
        text = f"Jobs: {', '.join(ends)}. What is done stays: run the same command again to go on."
        self.console.print(Text(text))
