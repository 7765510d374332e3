"""Time alternating runs, and write tables that name the command and the machine."""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "workflow_scripts"))


def seconds(work: Callable[[], object]) -> float:
    """Return the wall seconds of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(works: dict[str, Callable[[], object]], runs: int = 5) -> dict[str, float]:
    """Return the median seconds of each of the works, after one run that is not measured.

    The runs alternate, so that other load of the machine meets all of them.
    """
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(runs):
        for name, work in works.items():
            times[name].append(seconds(work))
    return {name: statistics.median(values) for name, values in times.items()}


def write_table(name: str, title: str, rows: list[dict], notes: str = "") -> None:
    """Write benchmarks/{name}.md: a table with a row per dict, the command and the machine."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [f"# {title}", "", f"`python benchmarks/{name}.py` made this table."]
    lines += [f"{machine()}.", ""]
    lines += [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(str(row.get(key, '')) for key in columns)} |" for row in rows]
    lines += ["", notes.strip(), ""] if notes else [""]
    (ROOT / f"benchmarks/{name}.md").write_text("\n".join(lines))
    print("\n".join(lines))


def machine() -> str:
    """Return one line on the processor, its cores, and torch's threads and version."""
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = {line.split(":")[1].strip() for line in lines if line.startswith("model name")}
    return (
        f"{', '.join(sorted(models)) or platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} thread(s), torch {torch.__version__}"
    )
