"""Native code is stopped by time and by memory, with nothing but its own process."""

import subprocess
import sys
import time

import numpy as np
import pytest

from stages.watchdog import bounded

# PyDLL holds the GIL while it sleeps, as a decoder that hangs may.
HANGS = "import ctypes; from stages.watchdog import bounded\nwith bounded(0.5): ctypes.PyDLL(None).sleep(30)"
WORKS = (
    "import time; from stages.watchdog import beat, bounded\n"
    "with bounded(1.5):\n for _ in range(8): time.sleep(0.3); beat()\n"
    "time.sleep(1.6); print('done')"
)


UNWATCHED = (
    "import time; from stages.watchdog import bounded, unwatched\n"
    "with bounded(0.5):\n with unwatched(): time.sleep(1.5)\n print('done', flush=True); time.sleep(30)"
)


def test_code_that_hangs_with_the_lock_of_python_ends_with_its_process() -> None:
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=20)
    assert ended.returncode == 1
    assert "Timeout" in ended.stderr
    assert time.monotonic() - began < 15


def test_work_that_goes_on_is_left_alone_and_so_is_what_comes_after() -> None:
    ended = subprocess.run([sys.executable, "-c", WORKS], capture_output=True, text=True, timeout=30)
    assert ended.stdout == "done\n", ended.stderr


def test_work_of_our_own_may_take_long_and_the_clock_goes_on_after_it() -> None:
    ended = subprocess.run([sys.executable, "-c", UNWATCHED], capture_output=True, text=True, timeout=20)
    assert (ended.returncode, ended.stdout) == (1, "done\n")


def test_memory_beyond_the_bound_is_refused_and_then_there_again() -> None:
    with bounded(more_memory_bytes=64 << 20):
        assert np.ones(16 << 20, np.uint8).all()
        with pytest.raises(MemoryError):
            np.ones(256 << 20, np.uint8)
    assert np.ones(256 << 20, np.uint8).all()
