"""Checkpoints of trainings that may be killed at any time.

JobState keeps the state of a job of several trials in a folder next to the job's outputs. The
folder is not a declared output, because Snakemake deletes the declared outputs of a job that
failed. A small journal lists what is finished and which files belong to it. The files of an epoch
are written first, then the journal, and then the files that it no longer names are removed, so
that a kill at any moment leaves a journal whose files all exist. Only trained weights and the
optimizer's state are kept.

`save_checkpoint` and `load_checkpoint` are for pretraining, whose state is a single file.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors.torch import save_file
from torch import Tensor

from foretune.core.files import atomic_write, digest_file, digest_json, write_json
from foretune.training.trials import EpochRow

JOURNAL_PARTS = ("rows", "best", "running", "files")


class BestEpoch(TypedDict):
    """The best epoch of a job so far: its trial's key, its row, and its file of weights."""

    key: str
    row: EpochRow
    file: str


class TrialState(TypedDict):
    """The trained weights and the optimizer's state, from which an unfinished trial resumes."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Any]


class JobState:
    """The finished epochs of a job, by trial key (see `core.grid.get_trial_key`).

    rows: the rows of each trial's epochs. best: the best epoch so far, or None. running: the name
    of the file from which each unfinished trial can resume. files: the SHA-256 digest of each file:
    a damaged disk may change a file so that it can still be read, with other numbers.

    Args:
        made_from: everything that the numbers depend on besides the trials, the code included.
        writes: whether to keep the state on disk, which only one of several processes does.
    """

    rows: dict[str, list[EpochRow]]
    best: BestEpoch | None
    running: dict[str, str]
    files: dict[str, str]

    def __init__(
        self,
        folder: Path,
        made_from: dict,
        log: Callable[[str], object] = print,
        writes: bool = True,
    ):
        self.folder, self.log, self.made_from = folder, log, digest_json(made_from)
        self.writes = writes
        self.journal = folder / "journal.json"
        self.clear()
        if self.journal.exists():
            self._read()

    def clear(self) -> None:
        """Forget all trials."""
        self.rows, self.best, self.running, self.files = {}, None, {}, {}

    def _read(self) -> None:
        name = self.journal.name
        try:
            saved = json.loads(self.journal.read_text())
            if saved["made_from"] != self.made_from:
                self.log(f"{self.folder}: made from another config, data or code; starting over")
                return
            if saved.pop("sha256", None) != digest_json(saved):
                raise ValueError("it is not what was written")
            for part in JOURNAL_PARTS:
                setattr(self, part, saved[part])
            if self.best:
                name = self.best["file"]
                self._check(name)
        except Exception as error:  # a damaged disk gives errors of many kinds
            self._set_aside(error, name)
            self.clear()

    def _check(self, name: str) -> Path:
        """Return the path of a file. Raises ValueError if it is not what was written."""
        path = self.folder / name
        if digest_file(path) != self.files[name]:
            raise ValueError("it is not what was written")
        return path

    def _set_aside(self, error: Exception, name: str) -> None:
        # The file may hold hours of training, and the disk may be at fault: do not overwrite it.
        damaged = self.folder / f"{name}.damaged"
        if (self.folder / name).exists():
            (self.folder / name).replace(damaged)
        self.log(f"{self.folder}: {name} cannot be read ({error}); kept as {damaged.name}")

    @property
    def best_file(self) -> Path | None:
        """The file of the best weights so far."""
        return self.folder / self.best["file"] if self.best else None

    def resume(self, key: str) -> TrialState | None:
        """Return what `save` was last given for an unfinished trial.

        Returns None, and forgets the trial's rows, if there is nothing to resume from.
        """
        if key in self.running:
            try:
                path = self._check(self.running[key])
                return torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:
                self._set_aside(error, self.running.pop(key))
        self.rows[key] = []
        return None

    def save(
        self,
        key: str,
        training: TrialState | None,
        best_weights: dict[str, Tensor] | None,
        metadata: dict[str, str],
    ) -> None:
        """Keep the trial's newest epoch, which is the last of its rows.

        Args:
            training: what the trial needs to resume; None if it has ended.
            best_weights: the trained weights if this epoch is the best of all so far; None if not.
            metadata: of the file of these weights.
        """
        stem = f"{digest_json(key)[:12]}-{len(self.rows[key])}"
        self.running.pop(key, None)
        if training is not None:
            self.running[key] = f"{stem}.pt"
            if self.writes:
                with atomic_write(self.folder / self.running[key]) as temporary:
                    torch.save(training, temporary)
                    self.files[self.running[key]] = digest_file(temporary)
        if best_weights is not None:
            self.best = {"key": key, "row": self.rows[key][-1], "file": f"{stem}.safetensors"}
            tensors = {name: tensor.contiguous() for name, tensor in best_weights.items()}
            if self.writes:
                with atomic_write(self.folder / self.best["file"]) as temporary:
                    save_file(tensors, temporary, metadata)
                    self.files[self.best["file"]] = digest_file(temporary)
        self.write()

    def write(self) -> None:
        """Write the journal, and remove the files that it does not name."""
        if not self.writes:
            return
        named = {*self.running.values(), self.best and self.best["file"]}
        self.files = {name: digest for name, digest in self.files.items() if name in named}
        content = {name: getattr(self, name) for name in ("made_from", *JOURNAL_PARTS)}
        write_json({**content, "sha256": digest_json(content)}, self.journal)
        for path in self.folder.iterdir():
            if path.suffix in (".pt", ".safetensors") and path.name not in named:
                path.unlink()


def save_checkpoint(state: dict, path: Path | str, made_from: dict) -> None:
    """Write a training's state to `path`.

    Args:
        made_from: everything that the training's numbers depend on, its code included.
    """
    with atomic_write(path) as temporary:
        torch.save({"made_from": made_from, "state": state}, temporary)


def load_checkpoint(
    path: Path | str, made_from: dict, log: Callable[[str], object] = print
) -> dict | None:
    """Return the state last saved at `path`.

    Returns None if there is none, if the file cannot be read, or if it was made from something
    else.
    """
    if not Path(path).exists():
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        parts = saved["made_from"], saved["state"]
    except Exception as error:  # torch raises many kinds, OSError too, for an incomplete file
        # The file may hold hours of training, and the disk may be at fault: do not overwrite it.
        damaged = Path(path).replace(Path(path).with_suffix(".damaged"))
        log(f"{path}: cannot be read ({error}); kept as {damaged.name}, starting over")
        return None
    if parts[0] != made_from:
        log(f"{path}: made from another config, data or code; starting over")
        return None
    return parts[1]
