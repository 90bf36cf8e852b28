"""Snakemake in a fork of a process that has imported what each run imports: 2 s less a run."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

#: Numba compiles nothing: an analysis of a few spikes takes 2 s of a core instead of 24.
UNCOMPILED = {"NUMBA_DISABLE_JIT": "1"}
PREPARED = multiprocessing.get_context("forkserver")
# Nothing of ours: a run may be of a copy of the package.
PREPARED.set_forkserver_preload(["snakemake.cli", "spikeinterface.sorters", "smart_open", __name__])


def run(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], timeout_s: float
) -> tuple[int, str]:
    """Run ``python -m snakemake ...`` to its end; return its status and what it printed.

    In a new interpreter, unless numba is to compile nothing, as in what was imported.
    """
    if not UNCOMPILED.items() <= environment.items():
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr
    with tempfile.TemporaryDirectory() as out:
        with mock.patch.dict(os.environ, UNCOMPILED):
            forkserver.ensure_running()
        process = PREPARED.Process(
            target=_run, args=(command[2:], str(folder), dict(environment), out)
        )
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(command, timeout_s)
        printed = "".join(Path(out, name).read_text() for name in ("1", "2"))
    return process.exitcode, printed


def _run(arguments: list[str], folder: str, environment: dict[str, str], out: str) -> None:
    """Do in this process what ``python -m`` does, with stdout and stderr in files."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number in (1, 2):
        os.dup2(os.open(f"{out}/{number}", os.O_WRONLY | os.O_CREAT), number)
    sys.argv = arguments
    further = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:0] = [folder, *further]
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
