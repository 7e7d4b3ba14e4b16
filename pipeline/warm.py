"""The process from which those of pipeline/processes.py are forked: it has imported what they need.

A command starts it before its own imports, which take as long, on another core. It only imports and forks: it
has no threads of Python, no client of a store, and has calculated nothing.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
from multiprocessing import forkserver

PRELOADED = ["pipeline.warm", "pipeline.here", "pipeline.making", "torchvision.models"]
# Elsewhere what the system's own libraries hold does not survive a fork.
FORKS = sys.platform == "linux"
CONTEXT = multiprocessing.get_context("forkserver" if FORKS else "spawn")
_TIED = "_REELMAP_TIED"  # in its environment
_PR_SET_PDEATHSIG = 1  # prctl(2)


def warm() -> None:
    """Starts it, if it is not there yet. It ends with the thread that calls this first."""
    if not FORKS:
        return
    CONTEXT.set_forkserver_preload(PRELOADED)
    # It imports what this process would, and nothing of the folder that it is started in.
    path = os.pathsep.join(filter(None, sys.path))
    # Threads of decoders and encoders come and go, and glibc keeps what each has freed in a heap of its own
    # (mallopt(3)): a process would grow by 130 MB in its first twenty videos.
    heaps = os.environ.get("MALLOC_ARENA_MAX", "1")
    changes = {_TIED: "1", "PYTHONSAFEPATH": "1", "PYTHONPATH": path, "MALLOC_ARENA_MAX": heaps}
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def cool() -> None:
    """Ends it where nothing is to be forked from it after all."""
    server = forkserver._forkserver
    if server._forkserver_pid is not None:
        os.kill(server._forkserver_pid, signal.SIGKILL)  # it would hear of its end after all imports
        server._stop()


def tie() -> None:
    """From here on this process is killed as soon as the thread that started it is gone, whatever ended it.

    At once, even where native code keeps threads of Python from running; but on Linux only.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if os.environ.pop(_TIED, None):
    tie()
    # Ctrl-C is for the command, which then ends what it has started.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
