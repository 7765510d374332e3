"""Time the measures against their authors' public definitions and scikit-learn's.

Writes benchmarks/measures.md. Each measure is timed in a process of its own, on one thread, with
ours and the reference on the same input. Times are CPU seconds, medians of the runs.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "workflow_scripts"), str(HERE.parent / "tests/support")]

# measure: classes, runs of the reference, how many times faster ours must be, MB it may take.
CASES = {
    "iimm": (100, 3, 400, None),
    "silhouette_cosine": (100, 1, 800, None),
    "silhouette_euclidean": (100, 1, 3, 300),
    "davies_bouldin": (100, 9, None, None),
    "calinski_harabasz": (100, 9, None, None),
    "emms": (100, 3, 30, None),
    "gbc_spherical": (397, 9, 30, None),
    "gbc_diagonal": (397, 9, None, None),
    "transrate": (397, 9, 5, None),
    "sfda": (100, 9, 2, None),
    "h_score": (100, 9, 2, None),
    "ncti": (100, 9, 1.5, None),
    "logme": (100, 3, None, None),
}
# Measures that pass over the images need these parts of the class statistics.
EXTENTS = dict.fromkeys(["silhouette_cosine", "silhouette_euclidean", "davies_bouldin"], "sums")
EXTENTS |= dict.fromkeys(["transrate", "sfda", "ncti"], "scatter")


def draw(images: int, width: int, classes: int):
    """Draw unit vectors (float64) in a cone, with class structure and at least one per class.

    Returns images (N, width), texts (C, width), labels (N,) and three label vectors (C, width).
    """
    import numpy as np

    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, images - classes)])
    centers = 0.4 * rng.normal(size=(classes, width)) + rng.normal(size=width)
    x = rng.normal(size=(images, width))
    x += centers[labels]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    texts = rng.normal(size=(classes, width)) - 0.3
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    return x, texts, labels, tuple(rng.normal(size=(3, classes, width)))


def make_reference(name: str, x, texts, labels, sources):
    """Return a function that computes the measure by its public definition."""
    import numpy as np
    from sklearn import metrics

    import public_definitions as public

    def clusters(score, **options):
        points = np.concatenate([x, texts])
        return score(points, np.repeat([0, 1], [len(x), len(texts)]), **options)

    def ncti():
        seli, ncc, vc = public.ncti(x, labels)
        return ncc + seli - vc

    return {
        "iimm": lambda: public.iimm(x, texts, labels),
        "silhouette_cosine": lambda: clusters(metrics.silhouette_score, metric="cosine"),
        "silhouette_euclidean": lambda: clusters(metrics.silhouette_score),
        "davies_bouldin": lambda: clusters(metrics.davies_bouldin_score),
        "calinski_harabasz": lambda: clusters(metrics.calinski_harabasz_score),
        "emms": lambda: public.emms(x, labels, sources),
        "gbc_spherical": lambda: -np.log(-public.gbc(x, labels, "spherical")),
        "gbc_diagonal": lambda: -np.log(-public.gbc(x, labels, "diagonal")),
        "transrate": lambda: public.transrate(x, labels),
        "sfda": lambda: public.sfda(x, labels),
        "h_score": lambda: public.h_score(x, labels),
        "ncti": ncti,
        "logme": lambda: public.logme(x, labels),
    }[name]


def timed(call) -> tuple[float, float]:
    """Return the value of a call and its CPU seconds."""
    start = time.process_time()
    value = call()
    return float(value), time.process_time() - start


def run_case(name: str, images: int, width: int, runs: int) -> dict:
    """Time ours and the reference of one measure, in this process."""
    from foretune.encoders.streams import ArraySource
    from foretune.measures.class_statistics import ALL, EXTENT_FIELDS
    from foretune.measures.compute import MEASURES
    from foretune.measures.task import Task, TaskOptions, compute_measure

    classes, slow_runs, _, _ = CASES[name]
    x, texts, labels, sources = draw(images, width, classes)
    each = MEASURES[name]
    # From arrays to the value: the statistics are gathered in the time, as much as it needs.
    extent = each.inputs if each.inputs in EXTENT_FIELDS else EXTENTS.get(name, ALL)

    def ours():
        task = Task(ArraySource(x, texts, labels), extent, TaskOptions(images), sources)
        return compute_measure(each, task).value

    ours()  # what is loaded on first use
    tracemalloc.start()
    ours()
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    reference, times, theirs = make_reference(name, x, texts, labels, sources), [], []
    for run in range(runs):  # in turns, so that what else the machine does falls on both alike
        value, seconds = timed(ours)
        times.append(seconds)
        if run < slow_runs:
            expected, seconds = timed(reference)
            theirs.append(seconds)
    return {
        "name": name, "classes": classes, "seconds": statistics.median(times), "peak": peak,
        "reference": statistics.median(theirs), "reference_runs": len(theirs),
        "difference": abs(value / expected - 1),
    }  # fmt: skip


def time_product(images: int, width: int) -> float:
    """Return the seconds of just the product that every measure with a scatter needs."""
    from scipy.linalg import blas

    x = draw(images, width, 2)[0].T
    return statistics.median(timed(lambda: blas.dsyrk(1.0, x)[0, 0])[1] for _ in range(9))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=HERE / "measures.md")
    args = parser.parse_args()
    if args.case == "product":
        print(time_product(args.images, args.width))
        return
    if args.case:
        print(json.dumps(run_case(args.case, args.images, args.width, args.runs)))
        return
    threads = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1")
    lines = [
        "# Measures against their public definitions", "",
        "`python benchmarks/measures.py` made this table. The reference is "
        "`tests/support/public_definitions.py` and scikit-learn.", "",
        f"{args.images} images, {args.width} dimensions, float64, one thread; CPU seconds, median "
        f"of {args.runs} runs (the reference's number of runs is in the table). Peak memory is "
        "what is allocated in addition to the input. "
        f"Python {platform.python_version()}, {platform.machine()}.", "",
        "| measure | classes | ours, s | reference, s (runs) | times faster | bar | "
        "peak, MB | relative difference |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    options = ["--images", str(args.images), "--width", str(args.width), "--runs", str(args.runs)]

    def printed(case: str) -> str:
        command = [sys.executable, __file__, "--case", case, *options]
        env = os.environ | threads
        return subprocess.run(
            command, env=env, stdout=subprocess.PIPE, text=True, check=True
        ).stdout

    for name in args.only:
        row = json.loads(printed(name))
        faster = row["reference"] / row["seconds"]
        bar = CASES[name][2]
        met = "" if bar is None else f"{bar} " + ("met" if faster >= bar else "missed")
        lines.append(
            f"| {name} | {row['classes']} | {row['seconds']:.3f} | {row['reference']:.2f} "
            f"({row['reference_runs']}) | {faster:.1f} | {met} | {row['peak']:.0f} | "
            f"{row['difference']:.0e} |"
        )
        print(lines[-1], flush=True)
    lines += [
        "",
        "The product of the images with themselves, which EMMS, TransRate, H-score, SFDA, NCTI and "
        f"LogME need, takes {float(printed('product')):.2f} s of the times above.",
    ]
    args.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
