"""Time measures of a Parquet cache of millions of rows, compared with just reading the file.

Writes benchmarks/stream.md. Each run is a process of its own with one BLAS thread. The file
(float16, row groups of 65536) is written below --folder first, and removed at the end.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "workflow_scripts"))
WIDTH, CLASSES, GROUP = 512, 100, 65536


def write_cache(folder: Path, images: int) -> None:
    """Write images.parquet with so many rows, and texts.npy with the classes' vectors."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    centers = 0.4 * rng.normal(size=(CLASSES, WIDTH)) + rng.normal(size=WIDTH)
    # Every row group uses the same noise, shifted by a row: drawing takes longer than measuring.
    noise = rng.normal(size=(GROUP, WIDTH)).astype(np.float32)
    kind = pa.list_(pa.float16(), WIDTH)
    schema = pa.schema([("label", pa.int64()), ("embedding", kind)])
    with pq.ParquetWriter(
        folder / "images.parquet", schema, compression="none", use_dictionary=False
    ) as writer:
        for start in range(0, images, GROUP):
            rows = min(GROUP, images - start)
            labels = rng.integers(0, CLASSES, rows)
            values = np.roll(noise, start // GROUP, axis=0)[:rows] + centers[labels]
            flat = pa.array(values.astype(np.float16).reshape(-1))
            vectors = pa.FixedSizeListArray.from_arrays(flat, WIDTH)
            table = pa.table({"label": labels, "embedding": vectors}, schema=schema)
            writer.write_table(table, row_group_size=GROUP)
    np.save(folder / "texts.npy", rng.normal(size=(CLASSES, WIDTH)) - 0.3)


def run_one(what: str, folder: Path) -> dict:
    """One reading or measuring of the cache, in this process."""
    from foretune.encoders.streams import STREAM_BLOCK, FileSource
    from foretune.measures.compute import MeasureOptions, measure_task
    from foretune.measures.registry import MEASURES

    source = FileSource(folder / "images.parquet", folder / "texts.npy")
    # Those that sums, or class statistics, determine.
    kinds = {"sums": {"sums"}, "class statistics": {"sums", "variances", "scatter", "all"}}
    start = time.monotonic()
    if what == "read":
        for _ in source.parquet_blocks():
            pass
    else:
        off = [name for name, each in MEASURES.items() if each.inputs not in kinds[what]]
        options = MeasureOptions(without=off, sample=STREAM_BLOCK, bootstrap=0)
        found = measure_task(source, 0, options)
        assert all(value is not None for value in found["measures"].values())
    seconds = time.monotonic() - start
    return {"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[10**4, 10**5, 10**6, 5 * 10**6])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for the file; 5 GB for 5 million rows")
    parser.add_argument("--write", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=HERE / "stream.md")
    args = parser.parse_args()
    if args.write:
        write_cache(args.folder, args.write)
        return
    if args.one:
        print(json.dumps(run_one(args.one, args.folder)))
        return
    threads = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1")

    def child(*options: str) -> str:
        command = [sys.executable, __file__, *options]
        done = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        return done.stdout

    lines = [
        "# Measures of a large cache, in one pass", "",
        "`python benchmarks/stream.py` made this table.", "",
        f"{WIDTH} dimensions, float16, {CLASSES} classes; wall seconds, median of {args.runs} "
        "runs, one BLAS thread; the file is read ahead in a second thread while measuring. "
        "Speed is relative to just reading the file. Peak memory is that of the whole process.", "",
        "| images | read, s | measures of | s | µs an image | speed | peak, MB |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for images in args.images:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            child("--write", str(images), "--folder", folder)
            found = {"read": [], "sums": [], "class statistics": []}
            for _ in range(args.runs):  # in turn, so that other load meets them all
                for what, runs in found.items():
                    runs.append(json.loads(child("--one", what, "--folder", folder)))
        middle = {what: sorted(run["seconds"] for run in runs)[len(runs) // 2]
                  for what, runs in found.items()}  # fmt: skip
        for what in ("sums", "class statistics"):
            peak = max(run["peak"] for run in found[what])
            lines.append(
                f"| {images} | {middle['read']:.2f} | {what} | {middle[what]:.2f} | "
                f"{1e6 * middle[what] / images:.1f} | {middle['read'] / middle[what]:.2f} | "
                f"{peak:.0f} |"
            )
            print(lines[-1], flush=True)
    args.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
