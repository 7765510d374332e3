"""GPUs for jobs that run at the same time on one machine: no two jobs share one.

Free of torch, which must not look for devices before they are chosen.
"""

import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from foretune.core.errors import ForetuneError
from foretune.core.locks import acquire_lock


def visible_devices() -> list[str]:
    """Return the devices in CUDA_VISIBLE_DEVICES, or all that nvidia-smi lists if it is unset.

    The list is empty if there is no GPU, or if nothing tells which there are.
    """
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        names = [name.strip() for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",")]
        # As CUDA does, stop at a device that does not exist. Slurm writes NoDevFiles for none.
        valid = itertools.takewhile(lambda name: name and not name.startswith(("-", "No")), names)
        return list(valid)
    if not shutil.which("nvidia-smi"):
        return []
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    count = sum(line.startswith("GPU") for line in listing.splitlines())
    return [str(number) for number in range(count)]


def take_devices(count: int, log: Callable[[str], None] = print) -> None:
    """Set CUDA_VISIBLE_DEVICES to `count` devices for this process; wait until they are free.

    If no more than `count` devices are visible, the variable stays as it is: a Slurm job sees its
    own devices only, and a machine may have none. Nothing is hidden if nothing tells which devices
    there are, as in a container without nvidia-smi; AMD's GPUs obey the same variable.

    Raises:
        ForetuneError: fewer devices are visible than the job takes, but at least one.
    """
    devices = visible_devices()
    if 0 < len(devices) < count:
        raise ForetuneError(f"the job takes {count} GPUs and there are {len(devices)}: set gpus")
    if len(devices) > count:
        devices = lock_devices(devices, count, log)
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    if count:
        log(f"GPU: {','.join(devices) or 'none listed'}")


def lock_devices(devices: list[str], count: int, log: Callable[[str], None]) -> list[str]:
    """Lock `count` of the devices until this process ends, and return them."""
    chosen: list[str] = []
    if not count:
        return chosen
    # A Slurm allocation numbers its devices from 0, so that two allocations may use one number.
    name = f"foretune-gpus-{os.getuid()}-{os.environ.get('SLURM_JOB_ID', '')}"
    folder = Path(tempfile.gettempdir(), name)
    folder.mkdir(exist_ok=True)
    # One job chooses at a time. Otherwise two that take several could wait for each other.
    choosing = acquire_lock(folder / "choosing", wait=True)
    assert choosing is not None
    try:
        while True:
            for device in devices:
                # The descriptor stays open, so that the lock ends with the process. Old names of
                # parts of a GPU have slashes: MIG-GPU-…/1/0.
                name = device.replace("/", "_")
                if device not in chosen and acquire_lock(folder / name) is not None:
                    chosen.append(device)
                if len(chosen) == count:
                    return chosen
            log("waiting for a GPU")
            time.sleep(1)
    finally:
        os.close(choosing)
