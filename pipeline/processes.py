"""Rows through a stage in processes of this machine, for work that is not worth a Ray.

The promises are those of pipeline/guard.py: what the stage raises is the row's `failure`, and a row that
takes its process with it (a decoder that crashes, or hangs for longer than it may) harms no other. A process
ends with the one that started it, however that ended: whoever writes to an OUTPUT does so under a lease.
"""

import multiprocessing
import os
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

from cluster.machine import cores, free_memory_bytes
from cluster.plan import MEMORY_SHARE
from pipeline import scratch
from pipeline.guard import Stage, failure, is_disk_full
from pipeline.warm import CONTEXT, tie, warm
from stages.failure import Failed, Unavailable
from stages.watchdog import bounded

DEATHS = 2  # of its worker, the last one alone, until a row is found guilty of them
STILLBORN = 3  # processes that died before they could take a row, until no more are tried
BEFORE_IT_BEGAN = "its processes die before they can begin: is there too little memory, or a library broken?"

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
    key: Callable[[Row], Any] = id,
    bounds_itself: bool = False,
) -> Iterator[tuple[Row, Row | PutOff]]:
    """Each row with what the stage `make(*args)` made of it, as they come; or with why it was put off.

    A row whose worker died is tried again when there is nothing else to do, alone: a neighbour may have taken
    the memory. With it wait all rows of its `key`. One that is found guilty has `killed` beside its failure,
    and the others of its key do not come out. A stage that cannot be made, or whose processes die of that,
    raises Stopped. Who takes the results may add to `rows` meanwhile where that is a deque.

    bounds_itself   stall_timeout_s is only to be spoken of: the stage heeds it
    """
    queue = _Queue(rows, key, deaths)
    busy: dict[Connection, _Task] = {}
    idle: list[_Worker] = []
    with ExitStack() as held:
        try:
            folder = held.enter_context(scratch.folder())  # where those that are killed leave nothing
        except OSError as error:
            raise Stopped(f"there is no room for scratch files: {error}") from error
        bound_s = None if bounds_itself else stall_timeout_s
        begin = partial(_Worker, folder, name, make, args, bound_s)
        held.callback(lambda: [worker.stop() for worker in (*idle, *(task.worker for task in busy.values()))])
        while queue or busy:
            alone = not queue.left and not busy
            if alone:
                for spare in idle[1:]:
                    spare.stop()
                del idle[1:]
            while len(busy) < workers and (queue.left or alone):
                row, before = queue.suspects.popleft() if alone else (queue.left.popleft(), 0)
                alone = False
                worker = _sent(row, idle, begin)
                busy[worker.here] = _Task(worker, row, before, name)
            for ready in wait(list(busy)):
                task = busy[ready]
                try:
                    result = ready.recv()
                except (EOFError, OSError):
                    del busy[ready]
                    task.worker.stop()
                    if not task.worker.ready:
                        queue.stillborn(task.row, task.before)
                    elif queue.died(task.row, task.before):
                        failed = failure(task.stage, Failed(_kills(stall_timeout_s, deaths)))
                        yield task.row, task.row | {"failure": failed, "killed": True}
                    continue
                if isinstance(result, _At):
                    task.worker.ready, task.stage = True, result.stage or name
                    queue.never_began = 0
                    continue
                del busy[ready]
                idle.append(task.worker)
                if isinstance(result, Stopped):
                    raise result
                yield task.row, result


class _Queue:
    """What is left to be done: rows of which nothing is known, and suspects, each with its deaths."""

    def __init__(self, rows: Iterable[Row], key: Callable[[Row], Any], deaths: int):
        self.left = rows if isinstance(rows, deque) else deque(rows)
        self.suspects = deque[tuple[Row, int]]()
        self.key, self.deaths = key, deaths
        self.never_began = 0

    def __bool__(self) -> bool:
        return bool(self.left or self.suspects)

    def died(self, row: Row, before: int) -> bool:
        """Whether the row is guilty of its worker's death; else it is a suspect, with all of its key."""
        same = self.key(row)
        others = taken(self.left, lambda other: self.key(other) == same)
        if before + 1 < self.deaths:
            self.suspects.append((row, before + 1))
            self.suspects.extend((other, 0) for other in others)
            return False
        taken(self.suspects, lambda suspect: self.key(suspect[0]) == same)
        return True

    def stillborn(self, row: Row, before: int) -> None:
        """The worker died before it could take the row, which is not the row's fault. May raise Stopped."""
        self.never_began += 1
        if self.never_began >= STILLBORN:
            raise Stopped(BEFORE_IT_BEGAN) from None
        self.suspects.append((row, before))


def taken(queue: deque, which: Callable[[Any], bool]) -> list:
    """What is taken out of a queue; the rest stays in order."""
    found, rest = [], []
    for item in queue:
        (found if which(item) else rest).append(item)
    queue.clear()
    queue.extend(rest)
    return found


def at(stage: str) -> None:
    """In a process: from now on, its death is one in this stage."""
    _Driver.stage = stage
    if _Driver.connection is not None:
        _Driver.connection.send(_At(stage))


def _kills(stall_timeout_s: float | None, deaths: int) -> str:
    hung = f" or hung for limits.stall_timeout_s = {stall_timeout_s:g}" if stall_timeout_s else ""
    often = f", {deaths} times, the last time while it was processed alone" if deaths > 1 else ""
    return f"its worker died{hung}{often}"


@dataclass(frozen=True)
class _At:
    """What a process says between rows and results: that it is ready, or in which stage its row is."""

    stage: str | None = None


class _Driver:
    """Of a process: who it works for, and in which stage it is."""

    connection: Connection | None = None
    stage: str | None = None


class _Worker:
    def __init__(
        self, folder: str, name: str, make: Callable[..., Stage], args: tuple, stall_timeout_s: float | None
    ):
        # Not forked from here: torch and the clients of a store have threads.
        warm()
        self.ready = False
        self.here, there = CONTEXT.Pipe()
        environment = os.environ | {"TMPDIR": folder}
        arguments = (environment, there, name, make, args, stall_timeout_s)
        self.process = CONTEXT.Process(target=_serve, args=arguments, daemon=True)
        try:
            self.process.start()
        except (EOFError, OSError) as error:  # what it is forked from has died
            raise Stopped(BEFORE_IT_BEGAN) from error
        there.close()  # so that its end is noticed here

    def stop(self) -> None:
        self.here.close()
        if self.process.is_alive():  # else its number may be another's by now
            self.process.terminate()
        self.process.join()


@dataclass
class _Task:
    worker: _Worker
    row: Row
    before: int  # deaths
    stage: str


def _sent(row: Row, idle: list[_Worker], begin: Callable[[], _Worker]) -> _Worker:
    """A worker that has the row: an idle one that lives, or a new one."""
    while idle:
        worker = idle.pop()
        try:
            worker.here.send(row)
        except OSError:  # it died with nothing to do: no fault of this row
            worker.stop()
            continue
        return worker
    worker = begin()
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
    os.environ.clear()  # that of what it was forked from is older
    os.environ.update(environment)
    tempfile.tempdir = None
    # Ctrl-C is for the process that started this one, which then ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        stage = make(*args)
    except Exception as error:  # whatever it is, it is said where somebody reads it
        there.recv()
        there.send(Stopped(f"{type(error).__name__}: {error}"))
        return
    there.send(_At())
    _Driver.connection = there
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
    _Driver.stage = None
    try:
        with bounded(stall_timeout_s):
            return stage(row)
    except Unavailable as error:
        return Unavailable(str(error))
    except Exception as error:  # any failure of one item is that item's row, never the run's end
        if is_disk_full(error):
            return OSError("the scratch disk is full")
        return row | {"failure": failure(_Driver.stage or name, error)}
