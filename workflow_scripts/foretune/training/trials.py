"""The job of training a method's trials: its description, the choice among trials, its files.

A trial is one point of a method's grid. Its key is its hyperparameters as JSON, so that a grid
can grow without renaming finished trials. A job writes three files:

    epochs.parquet                one row per epoch of each trial
    trained_weights.safetensors   the trained weights of the best trial, and nothing else
    best.json                     the best trial and epoch, their validation accuracy, and the
                                  digest of the weights
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np
import pyarrow as pa

from foretune.core.entries import Recipe, Run, Selection, Trial
from foretune.core.files import atomic_write, digest_file, link_or_copy, read_json, write_json
from foretune.core.grid import GRID_KEYS
from foretune.core.parquet import write_parquet
from foretune.core.variants import get_base_method
from foretune.data.splits import draw_shots

if TYPE_CHECKING:  # select_trial should not wait for torch
    from torch import Tensor

FEW_SHOT_VALIDATION = 4  # images per class

EPOCH_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("model", "method", "dataset")),
        ("trial", pa.int32()),
        ("learning_rate_peak", pa.float64()),
        ("weight_decay", pa.float64()),
        ("rank", pa.int32()),  # of LoRA; null for other methods
        ("reduction", pa.int32()),  # of CLIP-Adapter; null for other methods
        ("epoch", pa.int32()),
        *((name, pa.float64()) for name in
          ("loss", "val_accuracy", "learning_rate", "images_per_second")),
        ("ended", pa.string()),  # why the trial ended here: "diverged", "early", "halved" or null
    ]
)  # fmt: skip


@dataclass(frozen=True)
class JobSpec:
    """Describes a job: the trials of one (model, method, dataset), and where its files go.

    recipe: the method's entry of the config; the lists of its grid are not read. trials: points of
    the grid. dataset: folder of the prepared dataset. output: folder for the job's files.
    """

    run: Run
    recipe: Recipe
    trials: list[Trial]
    seed: int
    dataset: Path
    output: Path

    @property
    def method(self) -> str:
        """The method of the run, which may be one of its variants."""
        return get_base_method(self.run["method"])

    def draw_rows(self, split: str, labels: np.ndarray) -> np.ndarray | slice:
        """Return the rows of "train" or "val" that the job uses: a few per class, or all.

        With `shots` in the recipe, at most FEW_SHOT_VALIDATION images per class validate, as in
        CoOp (Zhou et al. 2022, arXiv:2109.01134).
        """
        if "shots" not in self.recipe:
            return slice(None)
        shots = self.recipe["shots"]
        if split == "val":
            shots = min(shots, FEW_SHOT_VALIDATION)
        return draw_shots(labels, shots, self.seed)


class TrialColumns(TypedDict):
    """The columns of an epoch's row that are the same for all epochs of a trial."""

    trial: int
    learning_rate_peak: float
    weight_decay: float
    rank: NotRequired[int]
    reduction: NotRequired[int]


class EpochRow(TrialColumns):
    """One epoch of one trial: a row of epochs.parquet without the names of the run."""

    epoch: int  # from 1
    loss: float
    val_accuracy: float
    learning_rate: float  # of the epoch's last step
    images_per_second: float
    ended: str | None


def get_trial_columns(trial: Trial) -> TrialColumns:
    """Return the trial's columns of an epoch's row, whose `learning_rate` is the epoch's."""
    columns: TrialColumns = {
        "trial": trial["trial"],
        "learning_rate_peak": trial["learning_rate"],
        "weight_decay": trial["weight_decay"],
    }
    if "rank" in trial:
        columns["rank"] = trial["rank"]
    if "reduction" in trial:
        columns["reduction"] = trial["reduction"]
    return columns


def get_ranking_key(row: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the key by which epochs' rows, or selections, are compared: the largest is best.

    Rows are compared by validation accuracy. A tie goes to the trial that changes the model less:
    the smaller learning rate, then the smaller weight decay, the smaller rank, the larger
    reduction. The order of the grid plays no part, so that a grid that grows keeps its winner.
    """
    # An epoch's row has two learning rates, its own and the trial's peak; a selection has the peak.
    rate = row.get("learning_rate_peak", row["learning_rate"])
    smaller_change = (-rate, -row["weight_decay"], -row.get("rank", 0), row.get("reduction", 0))
    return row["val_accuracy"], *smaller_change


def is_better(candidate: Mapping[str, Any], best: Mapping[str, Any] | None) -> bool:
    """Return whether a row or selection beats the best so far; equal rows do not."""
    return best is None or get_ranking_key(candidate) > get_ranking_key(best)


def list_rungs(recipe: Recipe) -> list[int]:
    """List the epochs after which trials are compared: the last, or those of successive halving.

    With `rungs: b` and `eta: e`, the remaining trials train to epochs / e^(b-1), ...,
    epochs / e, epochs (Jamieson & Talwalkar 2016). The learning rate schedule always spans all
    epochs.
    """
    search, epochs = recipe["search"], recipe["epochs"]
    if search["kind"] != "halving":
        return [epochs]
    return sorted({math.ceil(epochs / search["eta"] ** k) for k in range(search["rungs"])})


def select_survivors(rows: dict[str, list[EpochRow]], recipe: Recipe) -> set[str]:
    """Return the keys of the best 1 / `eta` of the trials, at least one, by their best epochs.

    Args:
        rows: the rows of each trial's epochs, by trial key.
    """
    ranking_keys = {
        key: max(map(get_ranking_key, trial_rows))
        for key, trial_rows in rows.items()
        if trial_rows[-1]["ended"] != "diverged"
    }
    ranked = sorted(ranking_keys, key=ranking_keys.__getitem__, reverse=True)
    return set(ranked[: max(1, len(rows) // recipe["search"]["eta"])])


def has_diverged(row: EpochRow, weights: Iterable["Tensor"]) -> bool:
    """Return whether an epoch's loss or any weight is not finite.

    Such a model still predicts classes, but must not be selected.
    """
    return not math.isfinite(row["loss"]) or not all(w.isfinite().all() for w in weights)


def write_results(
    job: JobSpec,
    epochs: list[EpochRow],
    best: EpochRow | None,
    trained_weights: "dict[str, Tensor] | Path | None",
) -> None:
    """Write the job's three files.

    Args:
        best: the row of the best epoch; None if every trial diverged. Then the file of weights is
            empty and best.json says so, and the study goes on without this pair.
        trained_weights: the trained tensors of that epoch, or a file of them, which is kept.
    """
    from safetensors.torch import save_file  # select_trial should not wait for torch

    run = job.run
    table = pa.Table.from_pylist([{**run, **row} for row in epochs], EPOCH_SCHEMA)
    write_parquet(table, job.output / "epochs.parquet", dict(run))
    weights_path = job.output / "trained_weights.safetensors"
    with atomic_write(weights_path) as temporary:
        if isinstance(trained_weights, Path):
            link_or_copy(trained_weights, temporary)
        else:
            weights = trained_weights or {}
            save_file({name: tensor.contiguous() for name, tensor in weights.items()}, temporary)
    selected = ("trial", *GRID_KEYS, "epoch", "val_accuracy")
    chosen: dict[str, Any] = {"diverged": True}
    if best is not None:
        chosen = {name: value for name, value in best.items() if name in selected}
        chosen["learning_rate"] = best["learning_rate_peak"]  # the trial's, not the epoch's
    files = {"trained_weights": str(weights_path), "sha256": digest_file(weights_path)}
    write_json({**run, **chosen, **files}, job.output / "best.json")


def describe_divergence(run: Mapping[str, Any]) -> str:
    """Return why a pair whose trials all diverged is missing, and what to do."""
    return f"every trial diverged: lower methods.{run['method']}.learning_rate"


def read_selection_file(path: Path) -> Selection:
    """Return the content of a best.json. Raises ForetuneError if it is damaged."""
    return read_json(path, Selection)


def select_trial(parts: list[Path], output: Path) -> None:
    """Write the best of several selections, the best.json of a method's parts, to `output`.

    It is one that diverged only if all did.
    """
    best: Selection | None = None
    for part in parts:
        candidate = read_selection_file(part)
        if (
            best is None
            or best.get("diverged")
            or (not candidate.get("diverged") and is_better(candidate, best))
        ):
            best = candidate
    write_json(best, output)
