"""The state of a tuning job that may be killed at any time.

It lies in a folder beside the job's outputs, undeclared, because Snakemake deletes the declared
outputs of a job that failed. A small journal says what is done and which files belong to it; the
files of an epoch are written first, then the journal, and last what it no longer names is
removed. So a kill at any moment leaves a journal whose files are all there. Only trained weights
and the optimizer's state are kept. (Pretraining, of one trial, has one file: the two functions.)
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from foretune.core.files import atomic_write, digest_json, write_json


class JobState:
    """What a job has done, by trial key (see trials.trial_key).

    rows: the rows of each trial's epochs; best: `{"key", "row", "file"}` of the best epoch so
    far, or None; running: the file with which each unfinished trial can go on.
    """

    def __init__(self, folder: Path, made_from: dict, log=print, writes: bool = True):
        """made_from: all that the numbers depend on beside the trials, the code included.

        writes: whether to keep it on disk, which one of several processes does for all.
        """
        self.folder, self.log, self.made_from = folder, log, digest_json(made_from)
        self.writes = writes
        self.journal = folder / "journal.json"
        self.clear()
        if self.journal.exists():
            self._read()

    def clear(self) -> None:
        self.rows: dict[str, list[dict]] = {}
        self.best: dict | None = None
        self.running: dict[str, str] = {}

    def _read(self) -> None:
        name = self.journal.name
        try:
            saved = json.loads(self.journal.read_text())
            if saved["made_from"] != self.made_from:
                self.log(f"{self.folder}: made from another config, data or code; starting anew")
                return
            self.rows, self.best, self.running = (saved[k] for k in ("rows", "best", "running"))
            if self.best:
                name = self.best["file"]
                load_file(self.best_file)  # whole?
        except Exception as error:  # a damaged disk gives errors of many kinds
            self._set_aside(error, name)
            self.clear()

    def _set_aside(self, error: Exception, name: str) -> None:
        # Hours of training may be in it, and the disk may be at fault: it is not written over.
        damaged = self.folder / f"{name}.damaged"
        if (self.folder / name).exists():
            (self.folder / name).replace(damaged)
        self.log(f"{self.folder}: {name} cannot be read ({error}); kept as {damaged.name}")

    @property
    def best_file(self) -> Path:
        return self.folder / self.best["file"]

    def resume(self, key: str) -> dict | None:
        """What `save` was given for an unfinished trial; None where it starts anew."""
        if key in self.running:
            try:
                path = self.folder / self.running[key]
                return torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:
                self._set_aside(error, self.running.pop(key))
        self.rows[key] = []
        return None

    def save(
        self, key: str, training: dict | None, best: dict[str, Tensor] | None,
        described: dict[str, str],
    ) -> None:  # fmt: skip
        """Keep the trial's newest epoch, the last of its rows.

        training: weights and optimizer to go on with, None for a trial that has ended; best: the
        weights, where that epoch is the best of all so far, for a file with metadata `described`.
        """
        stem = f"{digest_json(key)[:12]}-{len(self.rows[key])}"
        self.running.pop(key, None)
        if training is not None:
            self.running[key] = f"{stem}.pt"
            if self.writes:
                with atomic_write(self.folder / self.running[key]) as beside:
                    torch.save(training, beside)
        if best is not None:
            self.best = {"key": key, "row": self.rows[key][-1], "file": f"{stem}.safetensors"}
            weights = {name: tensor.contiguous() for name, tensor in best.items()}
            if self.writes:
                with atomic_write(self.best_file) as beside:
                    save_file(weights, beside, described)
        self.write()

    def write(self) -> None:
        """Write the journal, and remove the files that it does not name."""
        if not self.writes:
            return
        names = ("made_from", "rows", "best", "running")
        write_json({name: getattr(self, name) for name in names}, self.journal)
        named = {*self.running.values(), self.best and self.best["file"]}
        for path in self.folder.iterdir():
            if path.suffix in (".pt", ".safetensors") and path.name not in named:
                path.unlink()


def save_checkpoint(state: dict, path: Path | str, made_from: dict) -> None:
    """made_from: all that the training's numbers depend on, its code included."""
    with atomic_write(path) as beside:
        torch.save({"made_from": made_from, "state": state}, beside)


def load_checkpoint(path: Path | str, made_from: dict, log=print) -> dict | None:
    """The state last saved at `path`; None without one, or with one made from other things."""
    if not Path(path).exists():
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, OSError too, for a file cut short
        # Hours of training may be in it, and the disk may be at fault: it is not written over.
        aside = Path(path).replace(Path(path).with_suffix(".damaged"))
        log(f"{path}: cannot be read ({error}); kept as {aside.name}, starting anew")
        return None
    if saved["made_from"] != made_from:
        log(f"{path}: made from another config, data or code; starting anew")
        return None
    return saved["state"]
