"""Resume checkpoints: the state of a training that may be killed at any time.

They lie beside a job's outputs, undeclared, because Snakemake deletes the declared outputs
of a job that failed.
"""

from pathlib import Path

import torch

from foretune.files import whole_file


def save_checkpoint(state: dict, path: Path | str, made_from: dict) -> None:
    """made_from: all that the training's numbers depend on, its code included."""
    with whole_file(path) as beside:
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
