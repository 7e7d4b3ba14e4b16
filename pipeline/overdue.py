"""What is under way long after a deadline is left: the main thread is interrupted."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.gate import Gate
from pipeline.lease import interruptible

# What has begun before a deadline may still come to its end, for so long after it.
GRACE_S = 300.0


@contextmanager
def overdue(gate: Gate | None, over: threading.Event) -> Iterator[None]:
    """Sets `over` GRACE_S after the deadline of the gate, and interrupts the main thread then.

    The KeyboardInterrupt comes in here or not at all: whoever wants to go on after it catches it around this.
    """
    if gate is None:
        yield
        return
    with interruptible() as interrupt:

        def stop() -> None:
            over.set()
            interrupt()

        timer = threading.Timer(max(0.0, gate.deadline + GRACE_S - time.time()), stop)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()  # it may be about to interrupt
