"""How long videos are, by their headers, read where a hostile one can do no harm to the run.

libav may crash or hang on what a stranger wrote. So the driver starts processes for it, `python -m
jobs.headers`, which take URIs as JSON on standard input and answer with one line each; a file that takes its
process along, or whatever else goes wrong with it, is of unknown length. Imports no torch: it starts quickly.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from botocore.exceptions import BotoCoreError, ClientError

from stages.container import LIBAV_ERRORS, LimitSettings, open_source
from stages.failure import Dropped, Failed, Unavailable
from stages.probe import describe
from stages.watchdog import bounded

PROCESSES = 4  # that mostly wait for storage
STALL_S = 20.0  # of one header
TOGETHER_S = 90.0  # a plan is worth waiting so long for; what is not read by then is unknown
UNREADABLE = (
    *(Failed, Dropped, Unavailable, *LIBAV_ERRORS, OSError, BotoCoreError, ClientError),
    *(ValueError, ArithmeticError, LookupError, MemoryError),  # of numbers that a header made up
)


def lengths(uris: Sequence[str], limits: LimitSettings) -> list[float | None]:
    """Seconds of each, in order; None where they cannot be told."""
    until = time.monotonic() + TOGETHER_S
    shares = [uris[first::PROCESSES] for first in range(min(PROCESSES, len(uris)))]
    found: list[float | None] = [None] * len(uris)
    with ThreadPoolExecutor(PROCESSES) as pool:
        answers = pool.map(lambda share: share_of(share, limits, until), shares)
        for first, some in enumerate(answers):
            found[first::PROCESSES] = some
    return found


def share_of(uris: Sequence[str], limits: LimitSettings, until: float) -> list[float | None]:
    """One after another in one process; where that ends before them, another goes on behind its last."""
    found: list[float | None] = []
    while len(found) < len(uris) and time.monotonic() < until:
        found += ask(uris[len(found) :], limits, until - time.monotonic())
    return found + [None] * (len(uris) - len(found))


def ask(uris: Sequence[str], limits: LimitSettings, timeout_s: float) -> list[float | None]:
    """What a new process said of the first of these, one at least: of the one that ended it, None."""
    asked = {"limits": limits.model_dump(mode="json"), "stall_s": STALL_S, "uris": list(uris)}
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps(asked).encode(),  # not as arguments, which everybody here can list
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            timeout=timeout_s,
            check=False,
        )
        said = done.stdout
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
    # Only whole lines: the last may have been cut.
    found = [json.loads(line) for line in said.split(b"\n")[:-1]][: len(uris)]
    return found if len(found) == len(uris) else [*found, None]


def answer(uris: Iterable[str], limits: LimitSettings, stall_s: float) -> Iterator[str]:
    """In the process that reads: a line for each."""
    for uri in uris:
        with bounded(stall_s, limits.max_memory_bytes):
            length_s = header_seconds(uri, limits)
        yield f"{json.dumps(length_s)}\n"


def header_seconds(uri: str, limits: LimitSettings) -> float | None:
    try:
        with open_source(uri, limits) as source:
            return describe(source)["duration_s"]
    except UNREADABLE:
        return None


def main() -> None:
    asked = json.load(sys.stdin)
    limits = LimitSettings.model_validate(asked["limits"])
    for line in answer(asked["uris"], limits, asked["stall_s"]):
        sys.stdout.write(line)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
