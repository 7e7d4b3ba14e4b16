"""Which videos may still begin before a deadline: those that would be done by then, at the speed measured.

A video begins with its first shard. Whatever has begun goes on; what may not begin is left for the next run.
"""

import time
from collections.abc import Mapping

FIRST_STAGES = ("decode", "look")  # of a video, and of its proxies
# Without any measurement: a machine of two cores without a GPU makes more than this.
UNKNOWN_SPEED = 1.0
# How long the speed of earlier runs outweighs that of this one, whose first videos are still on their way.
TRUST_S = 600.0
# Without one, the guess above is given up sooner.
GUESS_TRUST_S = 60.0


class Gate:
    """seconds    footage of each video, by its id; estimates will do
    deadline   of `time.time()` where the gate is asked
    speed      seconds of footage per second of earlier runs; None: there were none
    """

    def __init__(self, seconds: Mapping[str, float], deadline: float, speed: float | None = None):
        self.seconds, self.deadline = dict(seconds), deadline
        self.prior, self.trust_s = (speed, TRUST_S) if speed else (UNKNOWN_SPEED, GUESS_TRUST_S)
        self.open: set[str] = set()  # begun and not finished
        self.finished: set[str] = set()
        self.late: set[str] = set()
        self.finished_s = 0.0
        self.started: float | None = None

    def lets(self, stage: str, video_id: str) -> bool:
        """May this stage of the video begin?"""
        if stage not in FIRST_STAGES or video_id in self.open or video_id in self.finished:
            return True
        if video_id in self.late:  # its other shards were refused, too
            return False
        if self.started is None:
            self.started = time.time()
        if not self.fits(self.seconds.get(video_id, 0.0)):
            self.late.add(video_id)
            return False
        self.open.add(video_id)
        return True

    def fits(self, length_s: float) -> bool:
        """Would so much footage be done in time, after all that is under way?"""
        now = time.time()
        # What is under way counts whole: how much of it is done is not known here.
        ahead_s = sum(self.seconds.get(other, 0.0) for other in self.open)
        return now + (ahead_s + length_s) / self.speed(now) <= self.deadline

    def finish(self, video_id: str) -> None:
        if video_id not in self.finished:
            self.open.discard(video_id)
            self.finished.add(video_id)
            self.finished_s += self.seconds.get(video_id, 0.0)

    def speed(self, now: float) -> float:
        """Seconds of footage per second: of earlier runs at first, of this one more and more."""
        elapsed_s = now - self.started if self.started is not None else 0.0
        return (self.prior * self.trust_s + self.finished_s) / (self.trust_s + max(0.0, elapsed_s))
