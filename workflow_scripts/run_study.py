"""Run a study with Snakemake, and refuse a second run in the same folder.

This command locks results/ and turns into Snakemake, which holds the lock until it ends. A killed
Snakemake leaves its own lock behind. If ours is free, no run is alive and that lock is removed.
Snakemake gets all other arguments.
"""

import argparse
import os
import sys
from pathlib import Path

from foretune.core import cli
from foretune.core.errors import ForetuneError
from foretune.core.locks import lock_results, remove_stale_locks
from foretune.core.machine import get_user_name
from foretune.core.study_file import read_study
from job_server import are_local, can_serve, start_job_server

# Snakemake prints a traceback for a Ctrl-C in its first seconds, before it handles one itself, and
# for each line of its log on a full disk. It finds the logger plugin `foretune` on the module path.
# Its limit of jobs per second is taken away: whenever it looks for jobs to start, the limit starts
# a timer for another look, so that after 1,000 jobs it would look 1,000 times a second.
START = f"""
import logging, signal, sys
logging.raiseExceptions = False
sys.path.append({str(Path(__file__).absolute().parent)!r})
signal.signal(signal.SIGINT, signal.SIG_DFL)
from snakemake.cli import main
from snakemake.settings.types import MaxJobsPerTimespan
MaxJobsPerTimespan.__bool__ = lambda limit: False
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    main()
except KeyboardInterrupt:
    sys.exit(130)
"""


def set_path() -> None:
    """Put this Python first in the PATH of Snakemake and its jobs.

    Raises:
        ForetuneError: neither PATH nor Snakemake can name the folder of this checkout.
    """
    root = str(Path(__file__).absolute().parents[1])
    if odd := set(root) & set(":{}"):
        raise ForetuneError(
            f"{root}: Snakemake and PATH cannot handle {' '.join(sorted(odd))} in the path "
            "of foretune's folder; rename it or move it"
        )
    own = os.path.dirname(sys.executable)
    os.environ["PATH"] = os.pathsep.join([own, os.environ.get("PATH", os.defpath)])


def set_user() -> None:
    """Give Snakemake the name of a user who has none, and a cache if the home is not writable."""
    os.environ.setdefault("LOGNAME", get_user_name())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        cache = cache.expanduser()  # RuntimeError for a user without a home
        (cache / "snakemake").mkdir(parents=True, exist_ok=True)
        usable = os.access(cache / "snakemake", os.W_OK)
    except (OSError, RuntimeError):
        usable = False
    if not usable:
        os.environ.setdefault("HF_HOME", str(cache / "huggingface"))  # its weights are only read
        os.environ["XDG_CACHE_HOME"] = str(Path(".snakemake/cache").absolute())


def work() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--study", type=Path, default=Path("config.yaml"), help="config file of the study"
    )
    args, others = parser.parse_known_args()
    read_study(args.study)  # Snakemake would print a traceback for an unreadable file
    set_path()
    set_user()
    local, dry = are_local(others), {"-n", "--dry-run", "--dryrun"} & set(others)
    logger = ["--logger", "foretune"] if local and not dry and "--logger" not in others else []
    snakemake = [sys.executable, "-c", START, *others, *logger, "--configfile", str(args.study)]
    if not dry:  # a dry run needs no lock
        lock_results()
        remove_stale_locks()
        os.environ.pop("PYTHONPATH", None)  # the job server shall load this Python's packages
        if local and can_serve():
            start_job_server()
    os.execv(sys.executable, snakemake)


if __name__ == "__main__":
    cli.main(work)
