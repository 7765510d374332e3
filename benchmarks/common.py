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


def open_report(path: Path, runs: int = 3) -> list[dict]:
    """Open the report several times, each in a new browser; return the seconds of each step."""
    from playwright.sync_api import sync_playwright  # most benchmarks open no page

    openings = []
    for _ in range(runs):
        with sync_playwright() as playwright:
            options = {"executable_path": "/usr/bin/chromium", "args": ["--no-sandbox"]}
            browser = playwright.chromium.launch(**options)
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(path.as_uri(), timeout=120_000)
            page.wait_for_selector("html[data-drawn]", state="attached", timeout=120_000)
            drawn_at = page.evaluate("({...document.documentElement.dataset})")
            sort = """() => { const start = performance.now();
                document.querySelector('#table-statistics th[data-key=spearman] button').click();
                return performance.now() - start; }"""
            choose = """async () => { const start = performance.now();
                await choose('method', 'lora'); return performance.now() - start; }"""
            openings.append({
                "first screen": float(drawn_at["opened"]) / 1000,
                "all drawn": float(drawn_at["drawn"]) / 1000,
                "sort of the longest table": page.evaluate(sort) / 1000,
                "another method": page.evaluate(choose) / 1000,
            })  # fmt: skip
            browser.close()
    return openings


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
