"""GPUs for jobs beside each other on one machine: each has its own, and no job has another's.

Free of torch, which must not look for devices before they are chosen.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from foretune.core.errors import ForetuneError

_held = []  # open files, whose locks end with the process, however it ends


def visible_devices() -> list[str]:
    """Those that CUDA_VISIBLE_DEVICES names, or all that nvidia-smi lists."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    return [str(i) for i in range(sum(line.startswith("GPU") for line in listed.splitlines()))]


def take_devices(count: int, log=print) -> None:
    """Leave this process `count` devices in CUDA_VISIBLE_DEVICES; wait for others to free them.

    Nothing is chosen where no more than that are visible, as in a Slurm job, which has its own,
    or where there are none. Raises ForetuneError where there are fewer.
    """
    devices = visible_devices()
    if 0 < len(devices) < count:
        raise ForetuneError(f"the job takes {count} GPUs and there are {len(devices)}: set gpus")
    if len(devices) > count:
        devices = lock_devices(devices, count, log)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    if count:
        log(f"GPU: {','.join(devices) or 'none'}")


def lock_devices(devices: list[str], count: int, log) -> list[str]:
    """`count` of the devices, locked for the life of this process."""
    chosen: list[str] = []
    if not count:
        return chosen
    # In a Slurm allocation devices are numbered anew; another's 0 need not be this one's.
    name = f"foretune-gpus-{os.getuid()}-{os.environ.get('SLURM_JOB_ID', '')}"
    folder = Path(tempfile.gettempdir(), name)
    folder.mkdir(exist_ok=True)
    with open(folder / "choosing", "w") as choosing:
        # One job chooses at a time, or two that take several could wait for each other.
        fcntl.flock(choosing, fcntl.LOCK_EX)
        while True:
            for device in devices:
                if device not in chosen and (lock := try_lock(folder / device)):
                    _held.append(lock)
                    chosen.append(device)
                if len(chosen) == count:
                    return chosen
            log("waiting for a GPU")
            time.sleep(1)


def try_lock(path: Path):
    """The file, open and locked; None where another process has it."""
    lock = open(path, "w")  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock
