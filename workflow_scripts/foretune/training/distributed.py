"""One training on several GPUs of a machine: a process for each, alike but for its share of rows.

Every process has the whole state and takes the same steps; the first alone writes. The functions
here are those of a single process where no others were launched.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from foretune.core.errors import ForetuneError
from foretune.encoders.imports import restore_compiler


def launch(processes: int, work: Callable, *arguments) -> None:
    """Call `work` in so many processes, or in this one; end as soon as one of them fails."""
    if processes == 1:
        work(*arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        given = (processes, Path(folder, "meeting"), work, arguments)
        try:
            torch.multiprocessing.spawn(_join, given, processes)
        except torch.multiprocessing.ProcessExitedException as error:
            sys.exit(error.exit_code)


def _join(number: int, processes: int, meeting: Path, work: Callable, arguments: tuple) -> None:
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(number)
    if number:  # one voice is enough; errors are heard from all
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    restore_compiler()  # which torch.distributed asks for
    dist.init_process_group(
        "nccl" if gpu else "gloo", f"file://{meeting}", rank=number, world_size=processes
    )
    try:
        work(*arguments)
    except ForetuneError as error:
        sys.exit(f"error: {error}")
    dist.destroy_process_group()


def rank() -> int:
    """This process's, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def main_process_first() -> Iterator[None]:
    """The first process runs the block alone, then the others: they find the files it leaves."""
    if rank():
        dist.barrier()
    yield
    if world_size() > 1 and not rank():
        dist.barrier()


def rank_indices(rows: np.ndarray) -> np.ndarray:
    """This process's positions among `rows`; where it has none, the first, with a weight of 0."""
    mine = np.arange(len(rows))[rank() :: world_size()]
    return mine if len(mine) else np.zeros(1, int)


def loss_weight(rows: np.ndarray) -> float:
    """What makes the mean of all processes' mean losses over their shares that over `rows`."""
    return len(range(rank(), len(rows), world_size())) * world_size() / len(rows)


def all_reduce_sum(value: Tensor) -> Tensor:
    """The sum of a value over the processes."""
    if world_size() > 1:
        dist.all_reduce(value)
    return value


def average_gradients(model: nn.Module, loss: Callable) -> Callable:
    """`loss`, a function of the model, with gradients averaged over the processes."""
    if world_size() == 1:
        return loss
    step = nn.Module()
    step.model, step.forward = model, loss
    return DistributedDataParallel(step, find_unused_parameters=True)
