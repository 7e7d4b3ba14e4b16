"""Rows through a stage in processes of this machine, for work that is not worth a Ray.

The promises are those of pipeline/guard.py: what the stage raises is the row's `failure`, and a row that
takes its process with it (a decoder that crashes, or hangs for longer than it may) harms no other.
"""

import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from pipeline.guard import Stage, failure, is_disk_full
from stages.failure import Failed, Unavailable
from stages.watchdog import bounded

DEATHS = 2  # of its worker, until a row is found guilty of them
# Not by fork: torch and the clients of a store have threads.
_SPAWN = multiprocessing.get_context("spawn")

Row = dict[str, Any]
PutOff = Unavailable | OSError  # the storage or the scratch disk, which are no fault of the row


class Stopped(Exception):
    """A worker cannot even begin; the message says why."""


def through(
    rows: Iterable[Row],
    name: str,
    make: Callable[..., Stage],
    args: tuple,
    workers: int,
    stall_timeout_s: float | None = None,
) -> Iterator[tuple[Row, Row | PutOff]]:
    """Each row with what the stage `make(*args)` made of it, as they come; or with why it was put off.

    A stage that cannot be made raises Stopped.
    """
    left, deaths = deque(rows), Counter()
    busy: dict[Connection, tuple[_Worker, Row]] = {}
    idle: list[_Worker] = []
    try:
        while left or busy:
            while left and len(busy) < workers:
                worker = idle.pop() if idle else _Worker(name, make, args, stall_timeout_s)
                row = left.popleft()
                worker.here.send(row)
                busy[worker.here] = worker, row
            for ready in wait(list(busy)):
                worker, row = busy.pop(ready)
                try:
                    result = worker.here.recv()
                except (EOFError, ConnectionResetError):
                    worker.stop()
                    deaths[row["video_id"]] += 1
                    if deaths[row["video_id"]] < DEATHS:
                        left.append(row)
                    else:
                        yield row, row | {"failure": failure(name, Failed(_kills(stall_timeout_s)))}
                    continue
                idle.append(worker)
                if isinstance(result, Stopped):
                    raise result
                yield row, result
    finally:
        for worker in [*idle, *(worker for worker, _ in busy.values())]:
            worker.stop()


def _kills(stall_timeout_s: float | None) -> str:
    hung = f" or hung for limits.stall_timeout_s = {stall_timeout_s:g}" if stall_timeout_s else ""
    return f"its worker died{hung}, {DEATHS} times"


class _Worker:
    def __init__(self, name: str, make: Callable[..., Stage], args: tuple, stall_timeout_s: float | None):
        self.here, there = _SPAWN.Pipe()
        arguments = (there, name, make, args, stall_timeout_s)
        self.process = _SPAWN.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        there.close()  # so that its end is noticed here

    def stop(self) -> None:
        self.here.close()
        self.process.terminate()
        self.process.join()


def _serve(
    there: Connection, name: str, make: Callable[..., Stage], args: tuple, stall_timeout_s: float | None
) -> None:
    # Ctrl-C is for the process that started this one, which then ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        stage = make(*args)
    except Exception as error:  # whatever it is, it is said where somebody reads it
        there.recv()
        there.send(Stopped(f"{type(error).__name__}: {error}"))
        return
    while True:
        try:
            row = there.recv()
        except EOFError:
            return
        there.send(_apply(name, stage, row, stall_timeout_s))


def _apply(name: str, stage: Stage, row: Row, stall_timeout_s: float | None) -> Row | PutOff:
    try:
        with bounded(stall_timeout_s):
            return stage(row)
    except Unavailable as error:
        return Unavailable(str(error))
    except Exception as error:  # any failure of one item is that item's row, never the run's end
        if is_disk_full(error):
            return OSError("the scratch disk is full")
        return row | {"failure": failure(name, error)}
