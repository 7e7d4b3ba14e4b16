"""A process beside the driver that ends what the driver leaves of its own Ray.

The raylet and the GCS of a local Ray die with their driver. The agents that the raylet has started find out
by themselves, except where the driver is killed while Ray starts: they wait minutes for a GCS that is gone.
"""

import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import psutil

MARK = "REELMAP_RAY"
GRACE_S = 5


@contextlib.contextmanager
def reaping() -> Iterator[dict[str, str]]:
    """An environment: what is started with it ends with this context or this process, whichever is first."""
    mark = uuid.uuid4().hex
    # The end of the pipe, of which only this process holds the other side, tells of any kind of death.
    reaper = subprocess.Popen(
        [sys.executable, "-I", __file__, mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the driver
    )
    try:
        # Ray's processes give themselves titles, which they would write over their environment.
        yield {MARK: mark, "SPT_NOENV": "1"}
    finally:
        reaper.stdin.close()
        reaper.wait()


def main(mark: str) -> None:
    sys.stdin.read()
    deadline = time.monotonic() + GRACE_S
    # One by one: a process that is about to end may have just started another.
    while left := _marked(mark):
        if time.monotonic() > deadline:
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        time.sleep(0.1)


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        # Another user's processes are not ours to read; a zombie has no environment.
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


if __name__ == "__main__":
    os.nice(5)
    main(sys.argv[1])
