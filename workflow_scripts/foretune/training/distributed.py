"""Training on several GPUs of one machine, with one process per GPU.

Every process holds the whole state and takes the same steps; the processes differ only in the
rows of each batch that they read. Only the process of rank 0 writes files. If no other process
was launched, the functions here are those of a single process.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from foretune.core.errors import ForetuneError
from foretune.encoders.imports import restore_compiler

# A process waits so long for another, such as for rank 0 to save an epoch on a slow disk. NCCL's
# own limit is 10 minutes.
TIMEOUT = timedelta(hours=1)


def launch(processes: int, work: Callable[..., None], *arguments) -> None:
    """Call `work` in this many processes, or in this one if a single one is asked for.

    If one process fails, the others are stopped and this one exits with the same code, or raises
    the ForetuneError of the first.
    """
    if processes == 1:
        work(*arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        process_arguments = (processes, Path(folder), work, arguments)
        try:
            torch.multiprocessing.spawn(_run_process, process_arguments, processes)
        except torch.multiprocessing.ProcessExitedException as error:
            if (message := Path(folder, f"error{error.error_index}")).exists():
                raise ForetuneError(message.read_text()) from None
            sys.exit(error.exit_code)


def _run_process(
    process_rank: int, processes: int, folder: Path, work: Callable[..., None], arguments: tuple
) -> None:
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(process_rank)
    if process_rank:  # only rank 0 prints progress
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    restore_compiler()  # torch.distributed imports it
    dist.init_process_group(
        "nccl" if has_gpu else "gloo",
        f"file://{folder}/rendezvous",
        rank=process_rank,
        world_size=processes,
        timeout=TIMEOUT,
    )
    try:
        work(*arguments)
    except ForetuneError as error:
        Path(folder, f"error{process_rank}").write_text(str(error))
        sys.exit(1)
    dist.destroy_process_group()


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank_indices(rows: np.ndarray) -> np.ndarray:
    """Return the positions among `rows` that this rank reads.

    If there are none for it, it reads the first row, with a loss weight of 0.
    """
    indices = np.arange(len(rows))[rank() :: world_size()]
    return indices if len(indices) else np.zeros(1, int)


def loss_weight(rows: np.ndarray) -> float:
    """Loss weight of this rank, so that averaging over ranks gives the mean loss over `rows`."""
    return len(range(rank(), len(rows), world_size())) * world_size() / len(rows)


def all_reduce_sum(value: Tensor) -> Tensor:
    """Return the sum of a value over all ranks; it replaces `value` in place."""
    if world_size() > 1:
        dist.all_reduce(value)
    return value


class SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all ranks; its gradient is the sum of theirs."""

    @staticmethod
    def forward(_, value: Tensor) -> Tensor:
        return all_reduce_sum(value.clone())

    @staticmethod
    def backward(_, gradient: Tensor) -> Tensor:
        return all_reduce_sum(gradient.clone())


def gather_rows(vectors: Tensor, size: int) -> Tensor:
    """Return the vectors (B, d) of a whole batch, of which each rank has those of `rank_indices`.

    If every rank computes the whole batch's loss, the average of the gradients over the ranks is
    the gradient of that loss.

    Args:
        vectors: of this rank's rows of the batch, (b, d).
        size: the rows of the batch, B.
    """
    if world_size() == 1:
        return vectors
    rows = torch.arange(size, device=vectors.device)[rank() :: world_size()]
    whole = vectors.new_zeros(size, vectors.shape[1])
    # A rank without a row of its own has read the first one, which is another rank's.
    return SumOverRanks.apply(whole.index_add(0, rows, vectors[: len(rows)]))


def average_gradients(model: nn.Module, loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return `loss`, a function of the model, with gradients that are averaged over the ranks."""
    if world_size() == 1:
        return loss
    step = nn.Module()
    step.model, step.forward = model, loss
    return DistributedDataParallel(step, find_unused_parameters=True)
