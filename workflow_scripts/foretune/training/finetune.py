"""Fine-tuning a dual encoder on a dataset: the trials of one method, resumed after a kill.

The best epoch is chosen by validation accuracy.

A job that was killed resumes after the last finished epoch, with the numbers of an uninterrupted
run: batches and augmentation are drawn from (seed, epoch) alone. Finished trials are kept by
their hyperparameters, so that a grid can grow without repeating them.
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from foretune.core.code_digest import code_digest
from foretune.core.entries import ModelSpec, Trial
from foretune.core.errors import ForetuneError
from foretune.core.grid import get_trial_key
from foretune.core.locks import exclusive_lock
from foretune.encoders.image_cache import prepare_images
from foretune.encoders.loading import load_model
from foretune.training import distributed
from foretune.training.batch_size import suggest_batch_size
from foretune.training.checkpoint import JobState, TrialState
from foretune.training.methods import describe_trained_weights
from foretune.training.trainable import TrainableModel
from foretune.training.trainer import Trainer
from foretune.training.trials import (
    EpochRow,
    JobSpec,
    describe_divergence,
    has_diverged,
    is_better,
    list_rungs,
    select_survivors,
    write_results,
)


class FineTuningJob:
    """The trials of one (model, method, dataset), and their state on disk."""

    def __init__(self, job: JobSpec, trainer: Trainer, log: Callable[[str], object] = print):
        self.job, self.trainer, self.log = job, trainer, log
        self.trials, self.recipe = job.trials, job.recipe
        # Everything that the numbers depend on besides the trial. `search` only orders the trials.
        made_from = {
            **trainer.made_from,
            "recipe": {k: v for k, v in job.recipe.items() if k != "search"},
            "seed": job.seed,
            "method": job.method,
            "code": code_digest("training.finetune"),
        }
        self.state = JobState(job.output / "state", made_from, log, writes=not distributed.rank())

    def train(self) -> None:
        """Train the trials that are not finished on disk, then write the job's files."""
        state, trials = self.state, self.trials
        keys = [get_trial_key(trial) for trial in trials]
        if state.best and state.best["key"] not in keys:
            state.clear()  # the only weights that are kept belong to a trial that left the grid
        remaining = dict(zip(keys, trials, strict=True))
        halved: set[str] = set()
        for epochs in list_rungs(self.recipe):
            for trial in remaining.values():
                self.train_trial(trial, epochs)
            if epochs < self.recipe["epochs"]:
                rows_so_far = {key: state.rows[key][:epochs] for key in remaining}
                survivors = select_survivors(rows_so_far, self.recipe)
                halved |= remaining.keys() - survivors
                remaining = {key: trial for key, trial in remaining.items() if key in survivors}
        for key in halved:
            state.running.pop(key, None)
            state.rows[key][-1]["ended"] = "halved"
        state.write()
        if not distributed.rank():
            self.write_results(keys)

    def write_results(self, keys: list[str]) -> None:
        """Write the job's files; `keys` are those of the trials, in the order of the job's list.

        A finished trial may have had another number when it was trained, in a smaller grid.
        """
        rows: list[EpochRow] = [
            {**row, "trial": trial["trial"]}
            for key, trial in zip(keys, self.trials, strict=True)
            for row in self.state.rows[key]
        ]
        best: EpochRow | None = None
        if self.state.best:
            trial = self.trials[keys.index(self.state.best["key"])]
            best = {**self.state.best["row"], "trial": trial["trial"]}
        write_results(self.job, rows, best, self.state.best_file)
        if best is None:
            self.log(f"{self.job.run['dataset']}: {describe_divergence(self.job.run)}")

    def train_trial(self, trial: Trial, epochs: int) -> None:
        """Train one trial until it has this many epochs, and save the state after each."""
        key, state = get_trial_key(trial), self.state
        rows = state.rows.get(key, [])
        if rows and rows[-1]["ended"] == "halved":
            rows[-1]["ended"] = None  # by an earlier run, perhaps with another grid
        if len(rows) >= epochs or (rows and rows[-1]["ended"]):
            return
        trainable, optimizer = self.trainer.start_trial(trial)
        try:
            saved = state.resume(key)
            rows = state.rows[key]
            if saved:
                with torch.no_grad():
                    for name, parameter in trainable.parameters.items():
                        parameter.copy_(saved["weights"][name])
                optimizer.load_state_dict(saved["optimizer"])
            while len(rows) < epochs and not (rows and rows[-1]["ended"]):
                row = self.trainer.train_epoch(trial, len(rows), optimizer, trainable)
                row["ended"] = self.find_reason_to_end(rows, row, trainable.parameters)
                rows.append(row)
                self.save_epoch(trial, row, optimizer, trainable)
                self.report_progress(trial, row)
        except torch.OutOfMemoryError:
            raise ForetuneError(suggest_batch_size(self.trainer)) from None
        finally:
            trainable.merge()

    def find_reason_to_end(
        self, rows: list[EpochRow], row: EpochRow, parameters: dict[str, nn.Parameter]
    ) -> str | None:
        """Return why the trial ends with the epoch `row`, which follows `rows`, if it does."""
        if has_diverged(row, parameters.values()):
            return "diverged"
        best = max([*rows, row], key=lambda other: (other["val_accuracy"], -other["epoch"]))
        if row["epoch"] - best["epoch"] >= self.recipe.get("patience", math.inf):
            return "early"
        return None

    def save_epoch(
        self,
        trial: Trial,
        row: EpochRow,
        optimizer: torch.optim.Optimizer,
        trainable: TrainableModel,
    ) -> None:
        """Save the state after an epoch, and its weights if it is the best of all trials so far."""
        previous_best = self.state.best["row"] if self.state.best else None
        is_best = row["ended"] != "diverged" and is_better(row, previous_best)
        finished = row["ended"] or row["epoch"] == self.recipe["epochs"]
        weights = {name: p.detach().cpu().clone() for name, p in trainable.parameters.items()}
        training: TrialState = {"weights": weights, "optimizer": optimizer.state_dict()}
        settings = self.trainer.get_settings(trial)
        self.state.save(
            get_trial_key(trial),
            None if finished else training,
            weights if is_best else None,
            describe_trained_weights(self.job.method, settings),
        )

    def report_progress(self, trial: Trial, row: EpochRow) -> None:
        """Log an epoch's numbers and the time that the remaining epochs take at its speed."""
        trials, run, total = self.trials, self.job.run, self.recipe["epochs"]
        finished = sum(len(self.state.rows.get(get_trial_key(other), [])) for other in trials)
        images_left = (total * len(trials) - finished) * len(self.trainer.labels["train"])
        number = f"trial {trials.index(trial) + 1}/{len(trials)}"
        self.log(
            f"{run['dataset']} {run['method']}  {number}  "
            f"epoch {row['epoch']}/{total}  loss {row['loss']:.3f}  "
            f"validation {row['val_accuracy']:.3f}  {row['images_per_second']:.0f} images/s  "
            f"{images_left / row['images_per_second']:.0f} s left"
        )
        if row["ended"] == "diverged":
            point = ", ".join(f"{name} {value}" for name, value in trial.items() if name != "trial")
            self.log(f"{number} ({point}): loss or weights are not finite; ended, never selected")


def finetune(
    job: JobSpec,
    model_spec: ModelSpec,
    text_cache: Path,
    prepared: Path | None = None,
    log: Callable[[str], object] = print,
    processes: int = 1,
) -> None:
    """Train the trials of one (model, method, dataset) and write the job's three files.

    Args:
        text_cache: embedding cache of the captions.
        prepared: folder where prepared images are kept (see `encoders.image_cache`).
        processes: number of processes, one per GPU.

    Raises:
        ForetuneError: a GPU has too little memory.
    """
    with exclusive_lock(job.output):
        if processes > 1 and prepared:
            # Before the processes start: they wait for each other for a limited time only.
            preprocess = load_model(model_spec).preprocess
            for split in ("train", "val"):
                prepare_images(job.dataset, split, preprocess, prepared, log)
        distributed.launch(processes, train_job, job, model_spec, text_cache, prepared, log)


def train_job(
    job: JobSpec,
    model_spec: ModelSpec,
    text_cache: Path,
    prepared: Path | None,
    log: Callable[[str], object],
) -> None:
    """Do the work of `finetune` in one of its processes."""
    FineTuningJob(job, Trainer(job, model_spec, text_cache, prepared, log), log).train()
