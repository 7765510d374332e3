"""Disturb a small study at random moments, and compare its results with those of an unbroken run.

It has two models, four methods, and a dataset in two shards. A disturbance is, by --mode:

kills       SIGKILL for all processes, or for Snakemake alone, which leaves its jobs running
two-runs    a second run in the same folder, which has to be refused in one line; then SIGKILL
read-only   two seconds of read-only folders (not as root, who may write anyway); then SIGKILL
full-disk   two seconds without space on the disk (as root, who may mount a small one); then SIGKILL

What a run prints must have no traceback of our own; Snakemake has one if it starts on a full disk.
Afterwards the study runs to its end, and all tables of results/analysis have to be equal to
the last bit. If it ends before the last disturbance, its results are deleted and it starts again.
It takes hours and is no part of `make test`: `.venv/bin/python tests/soak.py --times 100`.
"""

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "workflow_scripts"), str(ROOT / "tests/support")]

import pandas as pd  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import yaml  # noqa: E402

from checkout import copy_checkout  # noqa: E402
from foretune.core.parquet import read_metadata, write_parquet  # noqa: E402

COMMAND = [
    sys.executable, "workflow_scripts/run_study.py", "--profile", "profiles/local", "--cores", "2",
    "--study", "study.yaml",
]  # fmt: skip
METHODS = {
    "full": {"learning_rate": [1.0e-2, 1.0e-3], "epochs": 3, "batch_size": 16},
    "lora": {"learning_rate": [1.0e-2], "epochs": 3, "batch_size": 16},
    "clip_adapter": {"learning_rate": [1.0e-1], "epochs": 2},
    "linear_probe": {"learning_rate": [1.0], "epochs": 2},
}


def make_study(folder: Path, rows: int) -> None:
    """Copy the checkout into a new folder, with a study of `rows` rows of two datasets."""
    folder.mkdir(parents=True, exist_ok=True)
    copy_checkout(folder)
    datasets = {}
    for name, shards in (("digits", 2), ("mnist", 1)):
        source = ROOT / f"resources/mini/{name}.parquet"
        table = pq.read_table(source)
        test = table.num_rows - rows // 4  # the last rows are those of the test
        taken = table.take([*range(rows), *range(test, table.num_rows)])
        write_parquet(taken, folder / f"{name}.parquet", read_metadata(source))
        datasets[name] = {"parquet": f"{name}.parquet", "shards": shards}
    models = {name: {"folder": f"resources/mini/{name}"} for name in ("clip", "siglip")}
    study = {"models": models, "datasets": datasets, "methods": METHODS,
             "measures": {"bootstrap": 0}}  # fmt: skip
    (folder / "study.yaml").write_text(yaml.safe_dump(study))


def start(folder: Path, output=subprocess.DEVNULL) -> subprocess.Popen:
    """Start the study in a process group of its own."""
    return subprocess.Popen(
        COMMAND, cwd=folder, stdout=output, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def complete(folder: Path) -> float:
    """Run the study to its end; return the seconds it took, or exit with what it printed."""
    started = time.monotonic()
    process = start(folder, subprocess.PIPE)
    printed, _ = process.communicate()
    if process.returncode:
        sys.exit(f"{folder}: the study failed:\n{printed[-5000:]}")
    return time.monotonic() - started


def kill(folder: Path, process: subprocess.Popen, number: int) -> None:
    if number % 2:
        with contextlib.suppress(ProcessLookupError):  # all of them have ended
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def start_second_run(folder: Path, process: subprocess.Popen, number: int) -> None:
    second = start(folder, subprocess.PIPE)
    printed, _ = second.communicate()
    if process.poll() is None and "another run is at work" not in printed:
        sys.exit(f"{folder}: a second run was not refused:\n{printed[-5000:]}")
    kill(folder, process, number)


def fill_disk(folder: Path, process: subprocess.Popen, number: int) -> None:
    filler = folder / "filler"
    with open(filler, "wb") as file, contextlib.suppress(OSError):
        while True:  # until there is no space left, also for what is freed meanwhile
            file.write(bytes(1 << 20))
            file.flush()
    time.sleep(2)
    filler.unlink()
    kill(folder, process, number)


def make_read_only(folder: Path, process: subprocess.Popen, number: int) -> None:
    folders = [path for path in (folder / "results").rglob("*") if path.is_dir()]
    for path in folders:
        path.chmod(0o555)
    time.sleep(2)
    for path in folders:
        path.chmod(0o755)
    kill(folder, process, number)


def read_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Return the tables of the analysis, by name."""
    paths = sorted((folder / "results/analysis").glob("*.parquet"))
    return {path.stem: pd.read_parquet(path) for path in paths}


MODES = {
    "kills": kill, "two-runs": start_second_run, "read-only": make_read_only,
    "full-disk": fill_disk,
}  # fmt: skip
OWN_TRACEBACK = re.compile(r'^  File ".*workflow_scripts/', re.M)
DISK = "size=600m"  # of the disk that is filled: the study with its checkout takes 100 MB


@contextlib.contextmanager
def make_scratch(mode: str) -> Iterator[Path]:
    """Yield a new folder, for full-disk with a small disk of its own as its folder `disturbed`."""
    with tempfile.TemporaryDirectory(prefix="soak") as scratch:
        disk = Path(scratch, "disturbed")
        if mode != "full-disk":
            yield Path(scratch)
            return
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", disk], check=True)
        try:
            yield Path(scratch)
        finally:
            subprocess.run(["umount", "--lazy", disk], check=True)


def work() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", choices=list(MODES), default="kills")
    parser.add_argument("--times", type=int, default=100, help="number of disturbances")
    parser.add_argument("--rows", type=int, default=200, help="training rows of a dataset")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    if args.mode == "read-only" and os.getuid() == 0:
        sys.exit("root may write to read-only folders: run this mode as another user")
    moments = random.Random(args.seed)
    with make_scratch(args.mode) as scratch:
        unbroken, disturbed = scratch / "unbroken", scratch / "disturbed"
        for folder in (unbroken, disturbed):
            make_study(folder, args.rows)
        seconds = complete(unbroken)
        print(f"unbroken: {seconds:.0f} s, {len(read_tables(unbroken))} tables", flush=True)
        expected, rounds = read_tables(unbroken), 0
        for number in range(args.times):
            with open(scratch / "printed", "w+") as printed:
                process = start(disturbed, printed)
                time.sleep(moments.uniform(0, seconds / 2))
                ended = process.poll() is not None
                MODES[args.mode](disturbed, process, number)
                printed.seek(0)
                if OWN_TRACEBACK.search(text := printed.read()):
                    sys.exit(f"{args.mode} {number + 1}: a traceback in\n{text[-5000:]}")
            done = len(list(disturbed.glob("results/trials/*/*/*/*/best.json")))
            print(f"{args.mode} {number + 1}: {done} of 16 trainings had ended", flush=True)
            if ended:
                rounds += check(disturbed, expected)
                shutil.rmtree(disturbed / "results")
        rounds += check(disturbed, expected)
    print(f"{args.times} disturbances, {rounds} complete studies, all tables equal")


def check(folder: Path, expected: dict[str, pd.DataFrame]) -> int:
    """Complete the study and compare its tables. Exits at the first difference; returns 1."""
    complete(folder)
    found = read_tables(folder)
    if found.keys() != expected.keys():
        sys.exit(f"other tables: {sorted(found.keys() ^ expected.keys())}")
    for name, table in expected.items():
        pd.testing.assert_frame_equal(found[name], table, check_exact=True)
    left = list(folder.glob("results/**/.*.part"))
    if left:
        sys.exit(f"temporary files were left: {left}")
    return 1


if __name__ == "__main__":
    work()
