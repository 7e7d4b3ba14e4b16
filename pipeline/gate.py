"""Which videos may still begin before a deadline: those that would be done by then, at the speed measured.

A video begins with its first shard. Whatever has begun goes on; what may not begin is left for later: for
another attempt of this run where it turns out to be faster than was thought, otherwise for the next run.
"""

import time
from collections.abc import Mapping

FIRST_STAGES = ("decode", "look")  # of a video, and of its proxies
# Without any measurement or forecast: a machine of two cores without a GPU makes more than this.
UNKNOWN_SPEED = 1.0
# Of what the plan is expected to do in its steady state, on machines like those that were measured.
FORECAST_SHARE = 0.5
# How long what is known beforehand outweighs what this run shows: its first videos may be odd ones.
TRUST_S = 600.0
# What was refused is looked at again when the speed has risen by so much: each attempt starts the pools anew.
RISE = 1.1


class Gate:
    """seconds    footage of each video, by its id; estimates will do
    deadline   of `time.time()` where the gate is asked
    speed      seconds of footage per second of earlier runs; None: there were none
    """

    def __init__(self, seconds: Mapping[str, float], deadline: float, speed: float | None = None):
        self.seconds, self.deadline = dict(seconds), deadline
        self.measured_before = speed is not None
        self.prior = speed or UNKNOWN_SPEED
        self.open: set[str] = set()  # begun and not finished
        self.finished: set[str] = set()
        self.late: dict[str, float] = {}  # what was refused, at which speed
        self.finished_s = 0.0  # footage since the first was done
        self.first: float | None = None  # when that was
        self.last = 0.0

    def expect(self, speed: float) -> None:
        """What the plan is expected to do; earlier runs know better."""
        if not self.measured_before:
            self.prior = FORECAST_SHARE * speed

    def lets(self, stage: str, video_id: str) -> bool:
        """May this stage of the video begin?"""
        if stage not in FIRST_STAGES or video_id in self.open or video_id in self.finished:
            return True
        if video_id in self.late:  # its other shards were refused, too
            return False
        if not self.fits(self.seconds.get(video_id, 0.0)):
            self.late[video_id] = self.speed()
            return False
        self.open.add(video_id)
        return True

    def fits(self, length_s: float) -> bool:
        """Would so much footage be done in time, after all that is under way?"""
        # What is under way counts whole: how much of it is done is not known here.
        ahead_s = sum(self.seconds.get(other, 0.0) for other in self.open)
        return time.time() + (ahead_s + length_s) / self.speed() <= self.deadline

    def finish(self, video_id: str) -> None:
        if video_id in self.finished:
            return
        self.open.discard(video_id)
        self.finished.add(video_id)
        self.last = time.time()
        if self.first is None:
            self.first = self.last
        else:
            self.finished_s += self.seconds.get(video_id, 0.0)

    def speed(self) -> float:
        """Seconds of footage per second: as known beforehand at first, of this run more and more.

        Until the first is done the stages fill, and between two that are done nothing new is known: time
        that goes by alone says nothing of the speed.
        """
        measured_s = self.last - self.first if self.first is not None else 0.0
        return (self.prior * TRUST_S + self.finished_s) / (TRUST_S + max(0.0, measured_s))

    def reconsider(self) -> None:
        """Between two attempts: lets those ask again that would be done in time at the speed of now.

        Not while their shards are under way: a video of which some were refused would not come to its end.
        """
        speed = self.speed()
        for video_id, refused_at in list(self.late.items()):
            if speed > RISE * refused_at and self.fits(self.seconds.get(video_id, 0.0)):
                del self.late[video_id]
