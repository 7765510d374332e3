"""A real Slurm cluster of this machine alone, from Debian's packages, with two fake GPUs.

Each daemon is a child process of the test and writes into one folder only. Nothing runs as a
service, and nothing outlives `stop`.
"""

import os
import platform
import shutil
import socket
import subprocess
import time
from pathlib import Path

INSTALL = "apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"
COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "sacct")
CONF = """
ClusterName=box
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MailProg=/bin/true
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
TaskProlog={folder}/record
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill,UsePss
AccountingStorageType=accounting_storage/none
MinJobAge=3600
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,bf_interval=1
SelectType=select/{select}
SelectTypeParameters={shared}
GresTypes=gpu
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
SlurmctldTimeout=10
MessageTimeout=10
CompleteWait=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=100000 Gres=gpu:{gpu}:2 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=1440 State=UP
PartitionName=gpu Nodes={host} MaxTime=1440 State=UP
"""
GRES = "AutoDetect=off\nNodeName={host} Name=gpu Type={gpu} File={folder}/gpu[0-1]\n"
# A prolog that records which GPUs each task of each job sees.
RECORD = '#!/bin/sh\necho "$SLURM_JOB_ID ${{CUDA_VISIBLE_DEVICES:-none}}" >> {folder}/devices\n'


def missing() -> list[str]:
    """Return the commands that are not installed."""
    return [name for name in COMMANDS if not shutil.which(name, path=get_search_path())]


def get_search_path() -> str:
    """Return PATH with the folders into which Debian installs the daemons."""
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


class Cluster:
    """A cluster whose files are in `folder`; commands find it through the environment `env`.

    select: Slurm's plugin that chooses nodes, `cons_tres` or `linear`; gpu: the kind of its GPUs.
    """

    def __init__(self, folder: Path, cpus: int = 4, select: str = "cons_tres", gpu: str = "fake"):
        self.folder, self.daemons = folder, {}
        host = platform.node().split(".")[0]
        ports = []
        for _ in range(2):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                ports.append(probe.getsockname()[1])
        values = {
            "host": host,
            "ports": ports,
            "folder": folder,
            "cpus": cpus,
            "select": select,
            "gpu": gpu,
            "shared": "CR_Memory" if select == "linear" else "CR_CPU_Memory",
        }
        for name in ("state", "spool", "bin"):
            (folder / name).mkdir(parents=True)
        for name, text in (("slurm.conf", CONF), ("gres.conf", GRES), ("record", RECORD)):
            (folder / name).write_text(text.format(**values))
        (folder / "record").chmod(0o755)
        for number in range(2):  # Slurm tells devices by their numbers: both are /dev/null
            os.mknod(folder / f"gpu{number}", 0o666 | 0o020000, os.makedev(1, 3))
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o400)
        # Snakemake's executor takes SLURM_CONF from the environment of the srun that it calls.
        srun = folder / "bin/srun"
        srun.write_text(
            f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n'
        )
        srun.chmod(0o755)
        self.env = {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf",
                    "PATH": f"{folder}/bin:{get_search_path()}"}  # fmt: skip

    def start(self) -> None:
        """Start all daemons and wait until the node is idle."""
        file = {
            name: self.folder / f"munge.{name}" for name in ("key", "sock", "pid", "log", "seed")
        }
        self.spawn(
            "munged", "-F", f"--key-file={file['key']}", f"--socket={file['sock']}", "--force",
            f"--pid-file={file['pid']}", f"--log-file={file['log']}", f"--seed-file={file['seed']}",
        )  # fmt: skip
        self.wait_until(file["sock"].exists)
        self.start_controller()
        self.spawn("slurmd", "-D")
        self.wait_until(lambda: self.ask("sinfo", "-h", "-o", "%T") in ("idle", "idle\nidle"))

    def start_controller(self) -> None:
        self.spawn("slurmctld", "-D")

    def spawn(self, name: str, *arguments: str) -> None:
        """Start a daemon, whose output goes to `{name}.out`."""
        with open(self.folder / f"{name}.out", "a") as out:
            self.daemons[name] = subprocess.Popen(
                [shutil.which(name, path=get_search_path()), *arguments],
                env=self.env, stdout=out, stderr=out, cwd=self.folder,
                start_new_session=True,  # Ctrl-C ends the test, which stops the daemons
            )  # fmt: skip

    def end(self, name: str) -> None:
        """End a daemon if it runs."""
        daemon = self.daemons.pop(name, None)
        if daemon:
            daemon.terminate()
            daemon.wait(30)

    def stop(self) -> None:
        """Cancel all jobs and end all daemons."""
        if "slurmctld" in self.daemons:
            self.ask("scancel", "--user=root")
            self.wait_until(lambda: not self.ask("squeue", "-h"))
        for name in ("slurmd", "slurmctld", "munged"):
            self.end(name)

    def ask(self, *command: str) -> str:
        """Return what a Slurm command prints; empty if it fails."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True)
        return "\n".join(line.strip() for line in done.stdout.splitlines())

    def wait_until(self, condition, patience: float = 120) -> None:
        """Wait until `condition()` is true; fail if a daemon ended or after `patience` seconds."""
        end = time.monotonic() + patience
        while not condition():
            ended = [name for name, daemon in self.daemons.items() if daemon.poll() is not None]
            tails = {name: (self.folder / f"{name}.out").read_text()[-2000:] for name in ended}
            assert not ended, f"ended: {tails}"
            assert time.monotonic() < end, f"waited {patience} s in vain"
            time.sleep(0.1)

    def jobs(self) -> list[dict]:
        """Return the record of every job from `scontrol show job`, in the order of their ids."""
        blocks = self.ask("scontrol", "--oneliner", "show", "job").splitlines()
        records = [dict(word.split("=", 1) for word in block.split() if "=" in word)
                   for block in blocks if block.startswith("JobId=")]  # fmt: skip
        return sorted(records, key=lambda job: int(job["JobId"]))
