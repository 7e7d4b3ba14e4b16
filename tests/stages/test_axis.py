"""Many videos on one axis of time: what is known of each stands where its clips do, and nothing runs over."""

import itertools

import numpy as np
import pytest

from stages.axis import ROOM_S, Axis
from stages.nn.voice import STEP_S
from stages.pauses import edges_of


def talk(seconds: float, *spans: tuple[float, float]) -> np.ndarray:
    speech = np.zeros(round(seconds / STEP_S), np.float32)
    for start_s, end_s in spans:
        speech[round(start_s / STEP_S) : round(end_s / STEP_S)] = 0.95
    return speech


def test_words_and_flashes_of_every_video_are_where_its_clips_are() -> None:
    known = {
        "a": (talk(3600, (1, 3), (1799, 1802), (3000, 3010)), np.array([2.5, 900.0, 1801.0])),
        "b": (talk(20, (0, 1.5), (14, 20)), np.array([16.0])),
    }
    spans = [("b", 13.0, 18.0), ("a", 1798.0, 1804.0), ("a", 0.5, 4.0), ("b", 0.0, 2.0)]
    axis = Axis(spans)
    for video_id, facts in known.items():
        axis.note(video_id, *facts)
    edges = axis.edges(0.12)
    for video_id, start_s, end_s in spans:
        own = edges_of(*known[video_id], 0.12)
        shift_s = axis.shift_s(video_id, start_s)
        times = np.arange(start_s, end_s, 0.02)
        for name in ("entering", "leaving"):
            found = getattr(edges, name)(times + shift_s)
            assert found == pytest.approx(getattr(own, name)(times), abs=0.02)
        assert edges.talk_in(start_s + shift_s, end_s + shift_s) == own.talk_in(start_s, end_s)
    # Of an hour, only what surrounds its clips is held.
    assert len(edges.speech) * STEP_S < sum(b - a + 2 * ROOM_S + 1 for _, a, b in spans)


def test_clips_that_touch_still_do_and_no_others() -> None:
    axis = Axis([("a", 0.0, 10.0), ("a", 10.0, 14.0), ("b", 10.0, 12.0), ("a", 100.0, 104.0)])
    assert axis.shift_s("a", 0.0) == axis.shift_s("a", 10.0)
    places = [
        (start_s + axis.shift_s(video_id, start_s), end_s + axis.shift_s(video_id, start_s))
        for video_id, start_s, end_s in (("a", 0.0, 14.0), ("a", 100.0, 104.0), ("b", 10.0, 12.0))
    ]
    ordered = sorted(places)
    for (_, end_s), (start_s, _) in itertools.pairwise(ordered):
        assert start_s - end_s >= 2 * ROOM_S - 1e-6
    assert not axis.edges(0.1).talk_in(-1e9, 1e9)  # nothing was noted
