"""A real Slurm cluster of one node, this machine: config, spool and logs in one folder."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

import psutil

#: Where Slurm's commands look in jobs, which do not inherit SLURM_CONF; a link for the test.
DEFAULT_CONFIG = Path("/etc/slurm/slurm.conf")
DAEMONS = ("munged", "slurmctld", "slurmd")

CONFIG = """\
ClusterName=canary
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmctldPort={port}
SlurmdPort={port_d}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,batch_sched_delay=0
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
UnkillableStepTimeout=60
MpiDefault=none
ReturnToService=2
KillWait=10
MinJobAge=600
InactiveLimit=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Return why no cluster can run here; None where it can."""
    if os.geteuid() != 0:
        return "a Slurm cluster is started by root only"
    if DEFAULT_CONFIG.exists() and not is_left_over():
        return f"{DEFAULT_CONFIG} exists: a cluster is here already"
    missing = [name for name in DAEMONS if shutil.which(name, path=PATH) is None]
    return f"{', '.join(missing)} missing (apt-get install slurm-wlm munge)" if missing else None


def is_left_over() -> bool:
    """Tell whether the link is of a test that was killed: none of its daemons runs."""
    running = {process.info["name"] for process in psutil.process_iter(["name"])}
    return DEFAULT_CONFIG.is_symlink() and running.isdisjoint(DAEMONS)


PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])


class Cluster:
    """Starts the daemons, and stops what it started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: list[subprocess.Popen[bytes]] = []
        self.environment = {**os.environ, "PATH": PATH, "SLURM_CONF": f"{folder}/slurm.conf"}

    def __enter__(self) -> Self:
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        memory = psutil.virtual_memory().total // 2**20
        text = CONFIG.format(
            host=socket.gethostname().split(".")[0],
            folder=self.folder,
            port=free_port(),
            port_d=free_port(),
            cpus=os.cpu_count(),
            memory=memory - 500,
        )
        (self.folder / "slurm.conf").write_text(text)
        DEFAULT_CONFIG.parent.mkdir(exist_ok=True)
        DEFAULT_CONFIG.unlink(missing_ok=True)
        DEFAULT_CONFIG.symlink_to(self.folder / "slurm.conf")
        self.start(
            "munged",
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={self.folder}/munge.socket",
            f"--pid-file={self.folder}/munged.pid",
            f"--log-file={self.folder}/munged.log",
            f"--seed-file={self.folder}/munged.seed",
        )
        wait_until((self.folder / "munge.socket").exists)
        self.start("slurmctld", "-D", "-f", f"{self.folder}/slurm.conf")
        self.start("slurmd", "-D", "-f", f"{self.folder}/slurm.conf")
        wait_until(lambda: "idle" in self.run("sinfo", "--noheader", "--format=%T"))
        return self

    def __exit__(self, *_: object) -> None:
        self.run("scancel", "--user=root")
        wait_until(lambda: not self.run("squeue", "--noheader"))
        DEFAULT_CONFIG.unlink()
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()

    def start(self, *command: str) -> None:
        """Start a daemon."""
        log = (self.folder / f"{command[0]}.out").open("wb")
        self.daemons.append(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log))

    def run(self, *command: str) -> str:
        """Run one of Slurm's commands; return what it prints."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition, timeout_s: float = 60.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the cluster does not come up, or does not go")
        time.sleep(0.2)
