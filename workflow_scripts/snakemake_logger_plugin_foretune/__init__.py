"""Snakemake's logger plugin `foretune`: one redrawn display in a terminal, plain lines otherwise.

run_study.py asks for it (`--logger foretune`). Snakemake finds a plugin by the name of a package on
the module path. In a terminal, display.py draws the progress; what the jobs and Snakemake print
goes to logs/run.log, besides each job's own log. Without a terminal, Snakemake's lines are printed
as ever. A failed job is shown by its name, its log and the log's last lines instead of by its
command, which has kilobytes. Snakemake's own log in .snakemake/log/ has all of it.
"""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from snakemake.logging import ColorizingTextHandler, DefaultFormatter, timestamp
from snakemake_interface_logger_plugins.base import LogHandlerBase

from snakemake_logger_plugin_foretune.progress import (
    Progress,
    is_command_error,
    read_last_lines,
)

if TYPE_CHECKING:  # rich is loaded for a display only
    from snakemake_logger_plugin_foretune import display

RUN_LOG = Path("logs/run.log")
RUN_LOG_VARIABLE = "FORETUNE_RUN_LOG"  # to which jobs append what they print (Snakefile)
SHOWN_LINES = 10  # of the log of a failed job


def can_redraw(stream: TextIO) -> bool:
    """Return whether a display can be redrawn: on a terminal, and not in a CI service's log."""
    dumb = os.environ.get("TERM", "dumb") in ("dumb", "unknown")
    return stream.isatty() and not dumb and not os.environ.get("CI")


class ShortFailures(DefaultFormatter):
    """Formats as Snakemake does, but shows the log of a failed job instead of its command."""

    def __init__(self, progress: Progress, quiet: Any):
        super().__init__(quiet)
        self.progress = progress

    def format_job_error(self, msg: dict[str, Any]) -> str:
        job = self.progress.failed.get(msg["jobid"])
        lines = [timestamp(), f"Error in rule {msg['rule_name']}:"]
        if job:
            lines.append(f"    {job.name}")
        if job and job.status > 128:  # otherwise the log says why
            lines.append(f"    {job.describe_failure()}")
        for path in msg["log"]:
            tail = read_last_lines(path, SHOWN_LINES)
            lines.append(f"    log: {path}" + (", which ends with:" if tail else " is empty"))
            lines += [f"        {line}" for line in tail]
        return "\n".join(lines)


class LogHandler(LogHandlerBase):
    """Prints or draws what Snakemake reports."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = False  # Snakemake's own, which knows --quiet
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        settings = self.common_settings
        self.progress = Progress()
        self.display: display.Display | None = None
        stream = sys.stdout if settings.stdout else sys.stderr
        os.environ.pop(RUN_LOG_VARIABLE, None)
        if can_redraw(stream) and not settings.dryrun and not settings.verbose:
            from snakemake_logger_plugin_foretune.display import Display

            self.display = Display(self.progress, stream)
            RUN_LOG.parent.mkdir(exist_ok=True)
            RUN_LOG.write_text("")
            stream = RUN_LOG.open("a", encoding="utf-8", errors="replace")  # jobs append, too
            # Set before the first job starts. Descriptors that are changed in the thread that
            # handles records could come too late for it.
            os.environ[RUN_LOG_VARIABLE] = str(RUN_LOG.absolute())
        formatter = ShortFailures(self.progress, settings.quiet)
        self.plain = ColorizingTextHandler(
            nocolor=settings.nocolor, stream=stream, formatter=formatter
        )

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.progress.handle(record)
            if is_command_error(record):  # it repeats the command
                return
            self.plain.emit(record)
            if self.display:
                self.display.handle(record)
        except Exception:  # otherwise Snakemake's thread for records would end
            self.handleError(record)

    def close(self) -> None:
        if self.display:
            self.display.close()
            self.display = None
            self.plain.stream.close()
        super().close()
