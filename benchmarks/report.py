"""Measure the report of a large study: its size, the time to make it, and the time to open it.

The study is made up: forty datasets, ten models and six methods, in tables as the analysis writes
them, with twelve trials of thirty epochs per run, and sixty classes and ten photograph-like images
per dataset.
"""

import io
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from common import ROOT, open_report, seconds, write_table

sys.path.insert(0, str(ROOT / "tests/support"))
from foretune.analysis.study_tables import write_statistics
from foretune.report.build import build_report
from foretune.report.paper_figures import draw_figures
from report_study import make_study, save

DATASETS = [f"dataset number {i}" for i in range(40)]
MODELS = [f"a rather large model {i}" for i in range(10)]
METHODS = ["full", "bitfit", "attention", "lora", "clip_adapter", "linear_probe"]
MEASURES = ["iimm", "calinski_harabasz", "correct_label_alignment", "davies_bouldin", "emms",
            "gbc_diagonal", "gbc_spherical", "h_score", "inter_modal", "intra_images",
            "intra_texts", "logme", "modality_gap", "ncti", "sfda", "silhouette_cosine",
            "silhouette_euclidean", "transrate"]  # fmt: skip
CLASSES = [f"class {i} of sixty" for i in range(60)]


def tile_statistics(tasks, measured, names, predictors, seed, studies, output) -> None:
    """Write the statistics of the first model and method for all: only their size matters."""
    first = tasks[(tasks.model == MODELS[0]) & (tasks.method == METHODS[0])]
    write_statistics(first, measured, names, predictors, seed, studies, output)
    for name in ("statistics", "differences"):
        table = pd.read_parquet(output / f"{name}.parquet")
        copies = [
            table.assign(model=model, method=method) for model in MODELS for method in METHODS
        ]
        save(pd.concat(copies, ignore_index=True), output / f"{name}.parquet")


def photograph(colour, rng=np.random.default_rng(0)) -> bytes:  # noqa: B008
    """Make a JPEG of 320 x 240 pixels with detail at every scale, like a photograph."""
    pixels = np.zeros((240, 320, 3)) + colour
    for side in (5, 20, 80, 240):
        noise = rng.normal(0, 30, (side * 3 // 4 + 1, side, 3)).clip(-128, 127) + 128
        layer = Image.fromarray(noise.astype(np.uint8)).resize((320, 240), Image.BICUBIC)
        pixels += np.asarray(layer, float) - 128
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        study = make_study(
            folder, names=DATASETS, models=MODELS, methods=METHODS, measures=MEASURES,
            classes=CLASSES, analyze=tile_statistics, image=photograph, trials=12, epochs=30,
        )  # fmt: skip
        report = folder / "report.html"
        made = seconds(lambda: build_report(**study, output=report, title="A large study"))
        drawn = seconds(
            lambda: draw_figures(study["analysis"], study["epochs"], MODELS, folder / "figures")
        )
        openings = open_report(report)
        rows = [
            {"what": "report.html", "value": f"{report.stat().st_size / 1e6:.1f} MB"},
            {"what": "making it", "value": f"{made:.0f} s"},
            {"what": "figures for papers", "value": f"{drawn:.0f} s"},
        ]
        for name in openings[0]:
            value = statistics.median(run[name] for run in openings)
            rows.append({"what": f"in the browser: {name}", "value": f"{value:.2f} s"})
    write_table(
        "report", "The report of a large study", rows,
        "40 datasets, 10 models, 6 methods. The browser is headless Chromium; times are medians of "
        f"{len(openings)} openings, measured from when the page starts to load.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
