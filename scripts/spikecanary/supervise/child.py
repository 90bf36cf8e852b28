"""What runs inside a supervised child process: one function of this package.

``python -m spikecanary.supervise.child CALL EVENTS LIFELINE`` reads the call (JSON: ``target`` as
``module:function`` and ``arguments``, which become what the function's annotations say), runs it
and appends what happens to the events file, one JSON object a line: stages as they begin, facts,
and last its result or its error. A file and not a pipe, so that what was written is there however
the child ends. LIFELINE is a pipe that nobody writes to: it closes when the supervisor ends, and
then the child ends too, with all its process group.
"""

import contextlib
import faulthandler
import functools
import importlib
import inspect
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

from pydantic import validate_call
from pydantic_core import to_jsonable_python

from spikecanary.failures import ClassifiedSortFailure


def append(events: TextIO, **facts: Any) -> None:
    """Append facts as one line; a ``stage`` that begins is shown in the log too, if it can be."""
    line = to_jsonable_python({**facts, "at": time.monotonic()}, fallback=str)
    events.write(json.dumps(line) + "\n")
    events.flush()
    if "stage" in facts:
        with contextlib.suppress(OSError):
            sys.stdout.write(f"spikecanary: stage {facts['stage']}\n")
            sys.stdout.flush()


def describe_error(error: BaseException) -> dict[str, Any]:
    """Describe an exception as plain data: ``name``, ``message``, ``text``, ``failure``.

    The text is the traceback, with its whole chain; the failure is a classified one's description.
    """
    return {
        "name": type(error).__name__,
        "message": str(error),
        "text": "".join(traceback.format_exception(error)),
        "failure": error.describe() if isinstance(error, ClassifiedSortFailure) else None,
    }


def hang_on(lifeline: int) -> None:
    """End this process and its group when the supervisor ends, even by SIGKILL."""
    os.set_inheritable(lifeline, False)  # noqa: FBT003 - no keyword there

    def wait() -> None:
        os.read(lifeline, 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def main(call_path: str, events_path: str, lifeline: str) -> int:
    """Run the call; return the exit status: 0 if it returned, 1 if it raised."""
    faulthandler.enable()
    for stream in (sys.stdout, sys.stderr):  # an error's text may be no UTF-8
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    hang_on(int(lifeline))
    # Last, for what a plugin imports: a file there may have the name of any module.
    sys.path.append(str(Path.cwd()))
    call = json.loads(Path(call_path).read_text(encoding="utf-8"))
    module, function = call["target"].split(":")
    with Path(events_path).open("a", encoding="utf-8") as events:
        tell = functools.partial(append, events)
        try:
            target = getattr(importlib.import_module(module), function)
            hook = {"tell": tell} if "tell" in inspect.signature(target).parameters else {}
            result = validate_call(target)(**call["arguments"], **hook)
        except (Exception, SystemExit) as err:  # noqa: BLE001 - the parent gets it, whatever it is
            tell(error=describe_error(err))
            if not isinstance(err, ClassifiedSortFailure):  # whose one line says it all
                with contextlib.suppress(OSError):  # the event has it, too
                    traceback.print_exception(err, file=sys.stdout)
            return 1
        tell(result=result)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
