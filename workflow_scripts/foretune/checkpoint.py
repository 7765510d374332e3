"""Resume checkpoints: the state of a training that may be killed at any time.

They lie beside a job's outputs, undeclared, because Snakemake deletes the declared outputs
of a job that failed.
"""

from pathlib import Path

import torch

from foretune.files import whole_file


def save_checkpoint(state: dict, path: Path | str) -> None:
    with whole_file(path) as beside:
        torch.save(state, beside)


def load_checkpoint(path: Path | str) -> dict | None:
    """The state last saved at `path`, or None. Tensors and plain values, no code."""
    if not Path(path).exists():
        return None
    return torch.load(path, map_location="cpu", weights_only=True)
