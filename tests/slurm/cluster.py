"""A real Slurm cluster of three nodes on this machine: config, spool and logs in one folder.

Each node is a slurmd in a UTS namespace of its own, so that its jobs see another host name.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

import psutil

#: Where Slurm's commands look in jobs, which do not inherit SLURM_CONF; a link for the test.
DEFAULT_CONFIG = Path("/etc/slurm/slurm.conf")
DAEMONS = ("munged", "slurmctld", "slurmd")
NODES = ("n1", "n2", "n3")

CONFIG = """\
ClusterName=canary
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CryptoType=crypto/munge
SlurmctldPort={port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
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
SlurmdTimeout=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2
"""
NODE = "NodeName={name} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory={memory}\n"


def why_not() -> str | None:
    """Return why no cluster can run here; None where it can."""
    if os.geteuid() != 0:
        return "a Slurm cluster is started by root only"
    if DEFAULT_CONFIG.exists() and not is_left_over():
        return f"{DEFAULT_CONFIG} exists: a cluster is here already"
    missing = [name for name in DAEMONS if shutil.which(name, path=PATH) is None]
    if missing:
        return f"{', '.join(missing)} missing (apt-get install slurm-wlm munge)"
    allowed = subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False)
    return "no UTS namespaces (unshare --uts)" if allowed.returncode else None


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
        self.slurmds: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {**os.environ, "PATH": PATH, "SLURM_CONF": f"{folder}/slurm.conf"}

    def __enter__(self) -> Self:
        for name in ("state", *(f"spool.{node}" for node in NODES)):
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
        )
        for node in NODES:
            cpus = max(1, (os.cpu_count() or 1) // 2)
            text += NODE.format(name=node, port=free_port(), cpus=cpus, memory=memory - 500)
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
        for node in NODES:
            self.boot(node)
        return self

    def __exit__(self, *_: object) -> None:
        self.run("scancel", "--user=root")
        wait_until(lambda: not self.run("squeue", "--noheader"))
        DEFAULT_CONFIG.unlink()
        for node in NODES:  # with what its jobs have left running
            self.cut_power(node)
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a daemon."""
        log = (self.folder / f"{command[0]}.out").open("ab")
        daemon = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        self.daemons.append(daemon)
        return daemon

    def boot(self, node: str) -> None:
        """Start a node, and wait until it takes jobs."""
        slurmd = f"hostname {node} && exec slurmd -D -N {node} -f {self.folder}/slurm.conf"
        self.slurmds[node] = self.start("unshare", "--uts", "sh", "-c", slurmd)
        wait_until(lambda: self.state(node) in ("idle", "mixed", "allocated", "completing"))

    def state(self, node: str) -> str:
        """Return a node's state."""
        return self.run("sinfo", "--noheader", "--format=%T", f"--nodes={node}").split("\n")[0]

    def cut_power(self, node: str) -> None:
        """Kill all that runs on a node, at once."""
        own = Path(f"/proc/{self.slurmds[node].pid}/ns/uts").readlink()
        if own == Path("/proc/self/ns/uts").readlink():
            msg = f"{node} has no namespace of its own"
            raise RuntimeError(msg)
        for process in psutil.process_iter():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{process.pid}/ns/uts").readlink() == own:
                    os.kill(process.pid, signal.SIGKILL)
        self.slurmds[node].wait()

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
