"""Time a forecast for 5,000 images, from files in folders to the printed ranking.

The images are those of the bundled tasks, as JPEG files of 320 x 240 pixels in ten folders. `make
forecast` runs the same command. It runs in a copy of this checkout, in which nothing is embedded.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from common import ROOT, write_table
from foretune.data.prepared import decode_image

IMAGES, RUNS = 5000, 1


def make_folder(folder: Path) -> None:
    """Write IMAGES pictures of the bundled tasks into ten class folders."""
    written = 0
    for name in ("mnist", "fashion_mnist", "digits"):
        table = pq.read_table(ROOT / f"resources/mini/{name}.parquet", columns=["image", "label"])
        for image, label in zip(*(column.to_pylist() for column in table.columns), strict=True):
            place = folder / f"class {label}"
            place.mkdir(parents=True, exist_ok=True)
            large = decode_image(image, name).convert("RGB").resize((320, 240))
            large.save(place / f"{written}.jpg")
            written += 1
            if written == IMAGES:
                return


def forecast(checkout: Path, images: Path, models: dict) -> float:
    """Return the seconds of a forecast by these models, without any earlier results."""
    study = yaml.safe_load((ROOT / "config.yaml").read_text())
    methods = {name: recipe | {"models": [m for m in recipe.get("models", models) if m in models]}
               for name, recipe in study["methods"].items()}  # fmt: skip
    sources = [name for name in study["measures"]["emms_sources"] if name in models]
    measures = study["measures"] | {"emms_sources": sources}
    study |= {"models": models, "methods": methods, "measures": measures}
    (checkout / "study.yaml").write_text(yaml.safe_dump(study))
    shutil.rmtree(checkout / "results", ignore_errors=True)
    command = [sys.executable, "workflow_scripts/forecast_folder.py", "--data", str(images),
               "--study", "study.yaml", "--profile", "profiles/local",
               "--cores", "all"]  # fmt: skip
    started = time.perf_counter()
    subprocess.run(command, cwd=checkout, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    models = yaml.safe_load((ROOT / "config.yaml").read_text())["models"]
    first_model = dict(list(models.items())[:1])
    with tempfile.TemporaryDirectory() as folder:
        checkout, images = Path(folder, "checkout"), Path(folder, "pictures")
        checkout.mkdir()
        for name in ("Snakefile", "rules", "workflow_scripts", "profiles", "envs", "studies"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, checkout / name)
        (checkout / "resources").symlink_to(ROOT / "resources")
        make_folder(images)
        rows = []
        for encoders in (first_model, models):
            times = [forecast(checkout, images, encoders) for _ in range(RUNS)]
            rows.append(
                {"encoders": ", ".join(encoders), "seconds": f"{statistics.median(times):.0f}"}
            )
    write_table(
        "forecast", "A forecast for 5,000 images", rows,
        f"JPEG files of 320 x 240 pixels; median of {RUNS} run(s) with {os.cpu_count()} cores.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
