"""What the scripts share: arguments in, one readable line out when something is wrong."""

import argparse
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path

from foretune.core.errors import ForetuneError

log = functools.partial(print, flush=True)


def make_parser(description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )


def add_path_options(arguments: argparse.ArgumentParser, **helps: str) -> None:
    """Add required options that take one path each."""
    for name, text in helps.items():
        option = "--" + name.replace("_", "-")
        arguments.add_argument(option, type=Path, required=True, help=text)


def add_run_options(arguments: argparse.ArgumentParser) -> None:
    """Add the options that say which (model, method, dataset) and how."""
    for name in ("model", "method", "dataset-name"):
        arguments.add_argument(f"--{name}", required=True)
    arguments.add_argument("--recipe", type=json.loads, required=True, help="JSON")
    arguments.add_argument("--trials", type=json.loads, required=True, help="JSON list")
    arguments.add_argument("--seed", type=int, required=True)


def get_run(arguments: argparse.Namespace) -> dict:
    return {
        "model": arguments.model,
        "method": arguments.method,
        "dataset": arguments.dataset_name,
    }


def log_measures(found: dict) -> None:
    """Print the values of `measure_task`, and its notes."""
    values = found["measures"].items()
    log("  ".join(f"{name} {value:.4g}" for name, value in values if value is not None))
    for note in found["notes"]:
        log(f"note: {note}")
    for name, detail in found["details"].items():
        for note in detail["notes"]:
            log(f"note on {name}: {note}")


def main(work: Callable[[], None]) -> None:
    """Run a script's work; a ForetuneError becomes its message and exit code 1."""
    try:
        work()
    except ForetuneError as error:
        sys.exit(f"error: {error}")
