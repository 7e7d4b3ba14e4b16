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

PRELOADED = ["pipeline.warm", "pipeline.here", "torchvision.models"]
CONTEXT = multiprocessing.get_context("forkserver")
_TIED = "_REELMAP_TIED"  # in its environment
_PR_SET_PDEATHSIG = 1  # prctl(2)


def warm() -> None:
    """Starts it, if it is not there yet. It ends with the thread that calls this first."""
    CONTEXT.set_forkserver_preload(PRELOADED)
    os.environ[_TIED] = "1"
    try:
        forkserver.ensure_running()
    finally:
        del os.environ[_TIED]


def cool() -> None:
    """Ends it where nothing is to be forked from it after all."""
    forkserver._forkserver._stop()


def tie() -> None:
    """From here on this process is killed as soon as the thread that started it is gone, whatever ended it.

    At once, even where native code keeps threads of Python from running; but on Linux only.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if os.environ.pop(_TIED, None):
    tie()
