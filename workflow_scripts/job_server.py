"""Run the jobs of a local run in children that need not load torch.

A job that uses torch spends 4 seconds on imports. This server imports once what such jobs import,
and forks a child per job, with the job's arguments, folder, environment, umask and descriptors.
Jobs reach it through warm_start/python, which comes first in their PATH, and exit with the child's
exit code. Without the server, the same commands run as plain Python.

After the import the server forgets foretune's own modules, so that each child reads them from disk:
code that was changed while a study runs is used by the next job. The server starts no thread and
asks for no GPU, since a child of fork could use neither.

run_study.py starts the server before it becomes Snakemake. Linux kills the server when Snakemake
ends, and the children when the server ends. If the process that waits for a job is killed, the
server kills the job.
"""

import array
import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import secrets
import signal
import socket
import subprocess
import sys
import sysconfig
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

# What the served scripts import, and what that imports.
MODULES = (
    "foretune.evaluation.finetuned", "foretune.evaluation.on_embeddings",
    "foretune.forecast.rehearsal", "foretune.measures.compute", "foretune.training.distributed",
    "foretune.training.finetune", "foretune.training.on_embeddings",
)  # fmt: skip
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Libraries read these when they are loaded. A job with other values runs as plain Python, and so
# does one that a cluster started.
FIXED_VARIABLES = (
    *THREADS, "HF_HOME", "HF_HUB_CACHE", "FORETUNE_FULL_IMPORTS", "PYTHONPATH", "SLURM_JOB_ID",
)  # fmt: skip
JOB_SERVER = "FORETUNE_JOB_SERVER"  # its address in an abstract namespace, or `off`
# With these options, jobs run on other machines or with other software than this process.
ELSEWHERE = (
    "--executor", "-e", "--software-deployment-method", "--deployment-method", "--sdm",
    "--use-conda", "--use-apptainer", "--use-singularity",
)  # fmt: skip
Process = get_context("fork").Process
PR_SET_PDEATHSIG = 1  # of prctl(2): the signal that a process gets when its parent ends


def are_local(options: list[str]) -> bool:
    """Return whether the jobs of a Snakemake with these options run here, with this Python."""
    profile = os.environ.get("SNAKEMAKE_PROFILE")
    for option, value in zip(options, [*options[1:], ""], strict=True):
        if option.split("=")[0] in ELSEWHERE:
            return False
        if option == "--profile":
            profile = value
    return profile in (None, "profiles/local")


def can_serve() -> bool:
    """Return whether the server can run local jobs on this machine: it needs Linux."""
    return sys.platform == "linux" and os.environ.get(JOB_SERVER) != "off"


def start_job_server() -> None:
    """Start the server that forks jobs, and put the program that asks it first in the PATH."""
    scripts = Path(__file__).absolute().parent
    address = f"foretune-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{address}")
        listener.listen(1024)
        subprocess.Popen(
            [sys.executable, scripts / "job_server.py", str(os.getpid()), str(listener.fileno())],
            pass_fds=[listener.fileno()], env=os.environ | dict.fromkeys(THREADS, "1"),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    os.environ[JOB_SERVER] = address
    os.environ["PATH"] = f"{scripts / 'warm_start'}{os.pathsep}{os.environ['PATH']}"


def die_with(parent: int) -> None:
    """Have Linux kill this process when its parent ends, or exit if it has ended already."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def import_libraries() -> None:
    """Import what jobs import, and forget foretune's modules."""
    for name in MODULES:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.split(".")[0] == "foretune"]:
        del sys.modules[name]
    gc.collect()
    gc.freeze()  # otherwise the first collection in a child would copy all these objects


def read_install_time() -> int:
    """Return when a package was last installed or removed, in nanoseconds."""
    return os.stat(sysconfig.get_path("purelib")).st_mtime_ns


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Return a job and its descriptors, or None if the client only announced itself."""
    descriptors = array.array("i")
    start, ancillary, *_ = connection.recvmsg(8, socket.CMSG_SPACE(3 * descriptors.itemsize))
    if not start:
        return None
    for _, _, data in ancillary:
        descriptors.frombytes(data)
    with connection.makefile("rb") as stream:
        return json.loads(stream.read(int.from_bytes(start, "little"))), list(descriptors)


def owns(connection: socket.socket) -> bool:
    """Return whether the client belongs to this user: any user can find an abstract address."""
    credentials = array.array("i")  # of process, user and group
    credentials.frombytes(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return credentials[1] == os.getuid()


def run(job: dict[str, Any], descriptors: list[int], server: int, inherited: list) -> None:
    """Run a job's script in this new process."""
    die_with(server)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for connection in inherited:
        connection.close()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.umask(job["umask"])
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    sys.argv[:] = job["words"]
    atexit._clear()
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        # multiprocessing ends a process without them. It also omits the interpreter's own end,
        # which would take a child longer than all the rest of its start.
        atexit._run_exitfuncs()


class Server:
    """Answers clients until it is killed."""

    def __init__(self, listener: socket.socket):
        self.listener = listener
        self.ready: bool | None = None  # None before the imports, False if they failed
        self.installed = read_install_time()
        self.jobs: dict[socket.socket, Process] = {}  # by the client's connection

    def serve(self) -> None:
        while True:
            sentinels = [process.sentinel for process in self.jobs.values()]
            events = wait([self.listener, *self.jobs, *sentinels])
            for connection, process in list(self.jobs.items()):
                if process.sentinel in events or connection in events:
                    self.finish(connection, process)
            if self.listener in events:
                self.accept()

    def accept(self) -> None:
        connection, _ = self.listener.accept()
        descriptors: list[int] = []
        try:
            received = receive(connection) if owns(connection) else None
            if self.ready is None:
                self.prepare()
            if received:
                job, descriptors = received
                if self.takes(job):
                    connection.sendall(b"y")
                    inherited = [self.listener, connection, *self.jobs]
                    process = Process(target=run, args=(job, descriptors, os.getpid(), inherited))
                    process.start()
                    self.jobs[connection] = process
                else:
                    connection.sendall(b"n")
        except (OSError, ValueError):
            pass  # the client is gone
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
            if connection not in self.jobs:
                connection.close()

    def prepare(self) -> None:
        try:
            import_libraries()
            self.ready = True
        except Exception:  # a job will fail at the same import, and say so in its log
            self.ready = False

    def takes(self, job: dict[str, Any]) -> bool:
        """Return whether a job can run with the libraries and settings that were loaded."""
        environment = job["environment"]
        return (
            bool(self.ready)
            and self.installed == read_install_time()
            and all(environment.get(name) == os.environ.get(name) for name in FIXED_VARIABLES)
        )

    def finish(self, connection: socket.socket, process: Process) -> None:
        """Tell the client how its job ended. If the client is gone, kill the job."""
        del self.jobs[connection]
        process.kill()  # a client sends nothing more, so it is gone if it woke the server
        process.join()
        with connection, contextlib.suppress(OSError):
            assert process.exitcode is not None
            connection.sendall(process.exitcode.to_bytes(4, "little", signed=True))
        process.close()


if __name__ == "__main__":
    die_with(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the jobs and Snakemake
    Server(socket.socket(fileno=int(sys.argv[2]))).serve()
