"""Time the rehearsal's probes at the size of a large task, next to scikit-learn's.

50,000 images, 512 dimensions, 400 classes, five folds, six penalties, on one core. The seconds are
those of the core, so that other work on the machine does not count.
"""

import os
import time
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from sklearn.linear_model import Ridge

from common import write_table
from foretune.encoders.cache import normalize_rows
from foretune.forecast.probes import (
    PENALTIES,
    cross_validate_centroids,
    cross_validate_neighbours,
    cross_validate_ridge,
    draw_folds,
    standardize_columns,
)
from foretune.forecast.rehearsal import rehearse_on_fewer

IMAGES, WIDTH, CLASSES = 50_000, 512, 400


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds of one core that the work takes."""
    started = time.process_time()
    work()
    return time.process_time() - started


def fit_with_scikit_learn(features: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> None:
    """Fit one penalty in one fold, as a loop over scikit-learn's Ridge does for each."""
    fitted = folds != 0
    targets = np.eye(CLASSES, dtype=np.float32)[labels[fitted]]
    Ridge(alpha=1.0).fit(features[fitted], targets).predict(features[~fitted])


def main() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(IMAGES) % CLASSES
    centres = rng.normal(size=(CLASSES, WIDTH))
    vectors = (centres[labels] + rng.normal(0, 2, (IMAGES, WIDTH))).astype(np.float32)
    units = normalize_rows(vectors).astype(np.float32)
    features, folds = standardize_columns(units), draw_folds(labels, None, 5, 0)
    works = {
        "ridge probe, all folds and penalties": lambda: cross_validate_ridge(
            features, labels, folds
        ),
        "learning curve (three shares)": lambda: rehearse_on_fewer(features, labels, folds, 0),
        "nearest neighbours": lambda: cross_validate_neighbours(units, labels, folds, 0),
        "class means": lambda: cross_validate_centroids(units, labels, folds),
    }
    times = {name: min(seconds(work) for _ in range(2)) for name, work in works.items()}
    theirs = min(seconds(lambda: fit_with_scikit_learn(features, labels, folds)) for _ in range(2))
    loop = theirs * 5 * len(PENALTIES)
    times["all four"] = sum(times.values())
    rows = [{"step": name, "seconds": f"{time:.1f}"} for name, time in times.items()]
    rows.append({"step": "scikit-learn's Ridge: one fold and penalty", "seconds": f"{theirs:.1f}"})
    rows.append({"step": "the same for all folds and penalties (times 30)",
                 "seconds": f"{loop:.0f}"})  # fmt: skip
    ratio = loop / times["ridge probe, all folds and penalties"]
    notes = f"The smaller of two runs each. The ridge probe takes 1/{ratio:.0f} of the loop."
    title = f"The rehearsal of {IMAGES:,} images of {WIDTH} dimensions in {CLASSES} classes"
    write_table("rehearsal", title, rows, notes)


if __name__ == "__main__":
    main()
