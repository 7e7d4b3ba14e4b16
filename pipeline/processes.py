"""Rows through a stage in processes of this machine, for work that is not worth a Ray.

The promises are those of pipeline/guard.py: what the stage raises is the row's `failure`, and a row that
takes its process with it (a decoder that crashes, or hangs for longer than it may) harms no other. A process
ends with the one that started it, however that ended: whoever writes to an OUTPUT does so under a lease.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from cluster.machine import cores, free_memory_bytes
from cluster.plan import MEMORY_SHARE
from pipeline.guard import Stage, failure, is_disk_full
from pipeline.warm import CONTEXT, tie, warm
from stages.failure import Failed, Unavailable
from stages.watchdog import bounded

DEATHS = 2  # of its worker, the last one alone, until a row is found guilty of them

Row = dict[str, Any]
PutOff = Unavailable | OSError  # the storage or the scratch disk, which are no fault of the row


class Stopped(Exception):
    """A worker cannot even begin; the message says why."""


def room_for(rows: int, cores_each: int, bytes_each: int) -> int:
    """Workers that this machine has cores and memory for, at least one and no more than there are rows."""
    free = free_memory_bytes()
    by_memory = rows if free is None else int(MEMORY_SHARE * free / bytes_each)
    return max(1, min(rows, cores() // cores_each, by_memory))


def through(
    rows: Iterable[Row],
    name: str,
    make: Callable[..., Stage],
    args: tuple,
    workers: int,
    stall_timeout_s: float | None = None,
    deaths: int = DEATHS,
) -> Iterator[tuple[Row, Row | PutOff]]:
    """Each row with what the stage `make(*args)` made of it, as they come; or with why it was put off.

    A row whose worker died is tried again when all others are done, alone: a neighbour may have taken the
    memory. One that is found guilty has `killed` beside its failure. A stage that cannot be made raises
    Stopped. Who takes the results may add to `rows` meanwhile where that is a deque.
    """
    left = rows if isinstance(rows, deque) else deque(rows)
    suspects = deque[tuple[Row, int]]()
    busy: dict[Connection, tuple[_Worker, Row, int]] = {}
    idle: list[_Worker] = []
    try:
        while left or busy or suspects:
            alone = not left and not busy
            if alone:
                for spare in idle[1:]:
                    spare.stop()
                del idle[1:]
            while len(busy) < workers and (left or alone):
                row, before = suspects.popleft() if alone else (left.popleft(), 0)
                alone = False
                worker = _sent(row, idle, (name, make, args, stall_timeout_s))
                busy[worker.here] = worker, row, before
            for ready in wait(list(busy)):
                worker, row, before = busy.pop(ready)
                try:
                    result = worker.here.recv()
                except (EOFError, OSError):
                    worker.stop()
                    if before + 1 < deaths:
                        suspects.append((row, before + 1))
                    else:
                        failed = failure(name, Failed(_kills(stall_timeout_s, deaths)))
                        yield row, row | {"failure": failed, "killed": True}
                    continue
                idle.append(worker)
                if isinstance(result, Stopped):
                    raise result
                yield row, result
    finally:
        for worker in [*idle, *(worker for worker, _, _ in busy.values())]:
            worker.stop()


def _kills(stall_timeout_s: float | None, deaths: int) -> str:
    hung = f" or hung for limits.stall_timeout_s = {stall_timeout_s:g}" if stall_timeout_s else ""
    often = f", {deaths} times, the last time while it was processed alone" if deaths > 1 else ""
    return f"its worker died{hung}{often}"


class _Worker:
    def __init__(self, name: str, make: Callable[..., Stage], args: tuple, stall_timeout_s: float | None):
        # Not forked from here: torch and the clients of a store have threads.
        warm()
        self.here, there = CONTEXT.Pipe()
        arguments = (dict(os.environ), there, name, make, args, stall_timeout_s)
        self.process = CONTEXT.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        there.close()  # so that its end is noticed here

    def stop(self) -> None:
        self.here.close()
        self.process.terminate()
        self.process.join()


def _sent(row: Row, idle: list[_Worker], arguments: tuple) -> _Worker:
    """A worker that has the row: an idle one that lives, or a new one."""
    while idle:
        worker = idle.pop()
        try:
            worker.here.send(row)
        except OSError:  # it died with nothing to do: no fault of this row
            worker.stop()
            continue
        return worker
    worker = _Worker(*arguments)
    with suppress(OSError):  # its end shows where its answer is awaited
        worker.here.send(row)
    return worker


def _serve(
    environment: dict[str, str],
    there: Connection,
    name: str,
    make: Callable[..., Stage],
    args: tuple,
    stall_timeout_s: float | None,
) -> None:
    _end_with_driver()
    os.environ.update(environment)  # that of what it was forked from may be older
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


def _end_with_driver() -> None:
    """From here on this process is gone as soon as the driver is, in whatever code it is then."""
    # It ends with the process that it was forked from, which ends with the driver: whoever reads `through`
    # does so in a thread that lasts.
    tie()
    driver = multiprocessing.parent_process()
    if not driver.is_alive():  # it had gone before
        os._exit(1)

    def watch() -> None:
        wait([driver.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="driver").start()


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
