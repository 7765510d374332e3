"""A real Slurm of this machine alone, from Debian's packages: two GPUs that are none.

Each daemon is a child of the test and keeps all it writes in one folder; nothing runs as a
service and nothing outlives `stop`.
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
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
SlurmctldTimeout=10
MessageTimeout=10
CompleteWait=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=100000 Gres=gpu:fake:2 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=1440 State=UP
PartitionName=gpu Nodes={host} MaxTime=1440 State=UP
"""
GRES = "AutoDetect=off\nNodeName={host} Name=gpu Type=fake File={folder}/gpu[0-1]\n"
# What each task of each job sees of the GPUs.
RECORD = '#!/bin/sh\necho "$SLURM_JOB_ID ${{CUDA_VISIBLE_DEVICES:-none}}" >> {folder}/devices\n'


def missing() -> list[str]:
    """The commands that are not installed."""
    return [name for name in COMMANDS if not shutil.which(name, path=path())]


def path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"  # where Debian has the daemons


class Cluster:
    """env: the environment in which commands find this Slurm."""

    def __init__(self, folder: Path, cpus: int = 4):
        self.folder, self.daemons = folder, {}
        host = platform.node().split(".")[0]
        ports = []
        for _ in range(2):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                ports.append(probe.getsockname()[1])
        given = {"host": host, "ports": ports, "folder": folder, "cpus": cpus}
        for name in ("state", "spool", "bin"):
            (folder / name).mkdir(parents=True)
        for name, text in (("slurm.conf", CONF), ("gres.conf", GRES), ("record", RECORD)):
            (folder / name).write_text(text.format(**given))
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
                    "PATH": f"{folder}/bin:{path()}"}  # fmt: skip

    def start(self) -> None:
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
        with open(self.folder / f"{name}.out", "a") as out:
            self.daemons[name] = subprocess.Popen(
                [shutil.which(name, path=path()), *arguments], env=self.env, stdout=out, stderr=out,
                cwd=self.folder, start_new_session=True,  # Ctrl-C is the test's, which stops them
            )  # fmt: skip

    def end(self, name: str) -> None:
        daemon = self.daemons.pop(name, None)
        if daemon:
            daemon.terminate()
            daemon.wait(30)

    def stop(self) -> None:
        if "slurmctld" in self.daemons:
            self.ask("scancel", "--user=root")
            self.wait_until(lambda: not self.ask("squeue", "-h"))
        for name in ("slurmd", "slurmctld", "munged"):
            self.end(name)

    def ask(self, *command: str) -> str:
        """What a Slurm command prints; empty where it fails."""
        asked = subprocess.run(command, env=self.env, capture_output=True, text=True)
        return "\n".join(line.strip() for line in asked.stdout.splitlines())

    def wait_until(self, true, patience: float = 120) -> None:
        """Wait for `true()`; a daemon that has ended, or no patience left, is a failure."""
        end = time.monotonic() + patience
        while not true():
            over = [name for name, daemon in self.daemons.items() if daemon.poll() is not None]
            tails = {name: (self.folder / f"{name}.out").read_text()[-2000:] for name in over}
            assert not over, f"ended: {tails}"
            assert time.monotonic() < end, f"waited {patience} s in vain"
            time.sleep(0.1)

    def jobs(self) -> list[dict]:
        """Every job's record, as `scontrol show job` has it, in the order of their ids."""
        blocks = self.ask("scontrol", "--oneliner", "show", "job").splitlines()
        records = [dict(word.split("=", 1) for word in block.split() if "=" in word)
                   for block in blocks if block.startswith("JobId=")]  # fmt: skip
        return sorted(records, key=lambda job: int(job["JobId"]))
