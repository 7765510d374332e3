"""What the trials of a tuning job have in common: the grid, the choice, the files.

A trial is one point of a method's grid. Its key is its hyperparameters as JSON, so that a
grid can grow without renaming what is done. A job leaves three files:

    epochs.parquet      a row for each epoch of each trial
    trained_weights.safetensors   the best trial's trained weights, and nothing else
    best.json           which trial and epoch that is, its validation accuracy, the digest of its weights
"""

import json
import math
from pathlib import Path

import pyarrow as pa

from foretune.core.errors import ForetuneError
from foretune.core.files import atomic_write, digest_file, link_or_copy, write_json
from foretune.core.grid import GRID_KEYS
from foretune.core.parquet import write_parquet

EPOCH_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("model", "method", "dataset")),
        ("trial", pa.int32()),
        ("learning_rate_peak", pa.float64()),
        ("weight_decay", pa.float64()),
        ("rank", pa.int32()),  # of LoRA; null for others, as is
        ("reduction", pa.int32()),  # CLIP-Adapter's
        ("epoch", pa.int32()),
        *((name, pa.float64()) for name in
          ("loss", "val_accuracy", "learning_rate", "images_per_second")),
        ("ended", pa.string()),  # why a trial ended here: "diverged", "early", "halved" or null
    ]
)  # fmt: skip


def get_trial_key(trial: dict) -> str:
    return json.dumps({name: trial[name] for name in GRID_KEYS if name in trial}, sort_keys=True)


def get_trial_columns(trial: dict) -> dict:
    """A trial's columns in an epoch's row, where `learning_rate` is the epoch's own."""
    named = {name: value for name, value in trial.items() if name != "learning_rate"}
    return {**named, "learning_rate_peak": trial["learning_rate"]}


def get_ranking_key(row: dict) -> tuple[float, ...]:
    """What rows are compared by: validation accuracy; a tie goes to what changes the model less.

    That is the smaller learning rate, then the smaller weight decay, the smaller rank, the
    larger reduction; and among one trial's epochs the earlier. The order of the grid has no say,
    so that a grid that grows keeps its winner.
    """
    # An epoch's row has its own learning rate beside the trial's; a selection has one.
    rate = row.get("learning_rate_peak", row["learning_rate"])
    less = (-rate, -row["weight_decay"], -row.get("rank", 0), row.get("reduction", 0))
    return row["val_accuracy"], *less


def is_better(candidate: dict, best: dict | None) -> bool:
    return best is None or get_ranking_key(candidate) > get_ranking_key(best)


def list_rungs(recipe: dict) -> list[int]:
    """The epochs after which trials are compared: the last, or those of successive halving.

    With `rungs: b` and `eta: e` the trials that are left train to epochs / e^(b-1), ...,
    epochs / e, epochs (Jamieson & Talwalkar 2016); each keeps its own learning rate schedule.
    """
    search, epochs = recipe["search"], recipe["epochs"]
    if search["kind"] != "halving":
        return [epochs]
    return sorted({math.ceil(epochs / search["eta"] ** k) for k in range(search["rungs"])})


def select_survivors(rows: dict[str, list[dict]], recipe: dict) -> set[str]:
    """The keys of the best of the trials, one in `eta`, by their best epoch so far."""
    alive = {key: max(map(get_ranking_key, each)) for key, each in rows.items()
             if each[-1]["ended"] != "diverged"}  # fmt: skip
    ranked = sorted(alive, key=alive.get, reverse=True)
    return set(ranked[: max(1, len(rows) // recipe["search"]["eta"])])


def has_diverged(row: dict, weights) -> bool:
    """Whether an epoch's loss or any weight is not finite: it predicts, but must not win."""
    return not math.isfinite(row["loss"]) or not all(w.isfinite().all() for w in weights)


def write_results(
    output: Path,
    run: dict,
    epochs: list[dict],
    best: dict | None,
    trained_weights: dict | Path,
) -> None:
    """Write a job's files.

    run: model, method, dataset; best: the winning epoch's row; trained_weights: its trained tensors, or a
    file of them, which stays where it is.
    """
    from safetensors.torch import save_file  # select_trial should not wait for torch

    if best is None:
        raise ForetuneError(
            f"every trial on {run['dataset']} diverged; lower methods.{run['method']}.learning_rate"
        )
    rows = [{**run, **row} for row in epochs]
    write_parquet(pa.Table.from_pylist(rows, EPOCH_SCHEMA), output / "epochs.parquet", run)
    with atomic_write(output / "trained_weights.safetensors") as beside:
        if isinstance(trained_weights, Path):
            link_or_copy(trained_weights, beside)
        else:
            save_file(
                {name: tensor.contiguous() for name, tensor in trained_weights.items()}, beside
            )
    kept = ("trial", *GRID_KEYS, "epoch", "val_accuracy")
    chosen = {key: best[key] for key in kept if key in best}
    chosen["learning_rate"] = best["learning_rate_peak"]  # the trial's, not the epoch's
    weights_path = output / "trained_weights.safetensors"
    write_json(
        {
            **run,
            **chosen,
            "trained_weights": str(weights_path),
            "sha256": digest_file(weights_path),
        },
        output / "best.json",
    )


def select_trial(parts: list[Path], output: Path) -> None:
    """The best of the parts' best trials, as a small file that holds the digest of the weights."""
    best = None
    for part in parts:
        candidate = json.loads(Path(part).read_text())
        if is_better(candidate, best):
            best = candidate
    write_json(best, output)
