"""Keep what numba compiles for SpikeInterface, which otherwise each process compiles anew."""

import contextlib
import importlib
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from spikecanary import workfolders

logger = logging.getLogger(__name__)

#: Of all recordings, in the results folder.
FOLDER = ".compiled"
#: Whose functions the analysis compiles.
PACKAGES = ("spikeinterface.curation", "spikeinterface.metrics", "spikeinterface.postprocessing")


@contextlib.contextmanager
def kept(shared: Path, work: Path) -> Iterator[None]:
    """Keep what SpikeInterface's analysis compiles in the block; use what was kept before.

    Its functions are compiled at their first call in a process (SpikeInterface 0.105: 15 s of an
    analysis of 20 s). numba can keep them, by source, processor and types, but two processes
    that write to one folder may mix up each other's. Hence each process has a copy, which
    becomes the shared folder whole. For a process that ends after the block: the functions
    go on to use the copy, which is gone then.

    Parameters
    ----------
    shared : Path
        Folder of what was kept; need not exist. Removing it costs time only.
    work : Path
        Folder of this process, on the same file system, for its copy.
    """
    from numba.core import config
    from numba.extending import is_jitted

    for package in PACKAGES:
        importlib.import_module(package)

    with workfolders.work_folder(work):
        copy = work / shared.name
        # Another process may be replacing it: what is missing is compiled anew.
        with contextlib.suppress(OSError):
            shutil.copytree(shared, copy)
        os.environ["NUMBA_CACHE_DIR"] = str(copy)
        config.reload_config()
        for name, module in list(sys.modules.items()):
            if name.startswith("spikeinterface."):
                for function in filter(is_jitted, list(vars(module).values())):
                    function.enable_caching()
        before = _files(copy)
        yield
        if _files(copy) != before:
            shutil.rmtree(shared, ignore_errors=True)
            # Another process may have been faster: its copy is as good.
            with contextlib.suppress(OSError):
                copy.replace(shared)
                logger.info("kept what was compiled in %s", shared)


def _files(folder: Path) -> set[tuple[str, int]]:
    return {(str(path), path.stat().st_mtime_ns) for path in folder.rglob("*.nb[ci]")}
