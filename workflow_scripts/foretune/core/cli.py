"""Options, logging and one-line errors that all scripts share."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foretune.core.entries import Run
from foretune.core.errors import ForetuneError
from foretune.core.files import explain_disk_error


def log(line: object) -> None:
    """Print a line at once. The work goes on if nobody reads it, as after `| head -1`."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        discard_output()


def discard_output() -> None:
    """Let the rest of what this process prints, and its children's output, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def make_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser whose help shows the defaults."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )


def add_path_options(parser: argparse.ArgumentParser, **helps: str) -> None:
    """Add a required option with a path for each keyword; its value is the help text."""
    for name, text in helps.items():
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, type=Path, required=True, help=text)


def parse_json(text: str) -> Any:
    """Return the value of an option: JSON, or - for JSON on the standard input.

    Linux limits an argument to 128 KiB, and the rules give what may be longer by the input.

    Raises:
        ArgumentTypeError: the text is not JSON.
    """
    try:
        if text == "-":
            # In a child of the job server, sys.stdin is not the descriptor 0 that it was given.
            with open(0, encoding="utf-8", closefd=False) as stdin:
                text = stdin.read()
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is no JSON ({error})") from None


def add_batch_option(parser: argparse.ArgumentParser) -> None:
    """Add the option for the images per forward pass; 0 is the default of the device."""
    parser.add_argument(
        "--batch-size", type=int, default=0, help="images per forward pass; 0: as suits the device"
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a model, a method and a dataset, and those of the training."""
    for name in ("model", "method", "dataset-name"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--recipe", type=parse_json, required=True, help="JSON")
    parser.add_argument("--trials", type=parse_json, required=True, help="JSON list")
    parser.add_argument("--seed", type=int, required=True)


def get_run(arguments: argparse.Namespace) -> Run:
    """Return the names of model, method and dataset from options of `add_run_options`."""
    return {
        "model": arguments.model,
        "method": arguments.method,
        "dataset": arguments.dataset_name,
    }


def log_measures(result: dict) -> None:
    """Print the values and the notes that `measure_task` returned."""
    values = result["measures"].items()
    log("  ".join(f"{name} {value:.4g}" for name, value in values if value is not None))
    for note in result["notes"]:
        log(f"note: {note}")
    for name, detail in result["details"].items():
        for note in detail["notes"]:
            log(f"note on {name}: {note}")


def main(work: Callable[[], None]) -> None:
    """Run a script's work; print an error that the user can mend as one line and exit with code 1.

    These are ForetuneError and what the system says of files: a full disk, missing permissions.
    """
    try:
        work()
    except ForetuneError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:  # end as Ctrl-C ends any command, so that a shell script ends, too
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
    except BrokenPipeError:  # nobody reads what a command like `plan` prints
        discard_output()
        sys.exit(1)
    except OSError as error:
        reason = explain_disk_error(error)
        if reason is None:
            raise
        sys.exit(f"error: {error.filename or 'a file'}: {reason}")
