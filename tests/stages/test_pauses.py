"""Cuts stand in pauses, leave room to breathe, and rather part sentences than words."""

import numpy as np
import pytest

from stages.nn.voice import STEP_S
from stages.pauses import BREATHLESS, IN_SENTENCE, TAIL_S, Edges, edges_of

NOTHING = np.empty(0)


def spoken(*spans_s: tuple[float, float], seconds: float = 20.0) -> np.ndarray:
    """Probabilities as the network gives them of somebody who speaks in these spans."""
    middles = (np.arange(round(seconds / STEP_S)) + 0.5) * STEP_S
    speech = np.full(len(middles), 0.01, np.float32)
    for start, end in spans_s:
        speech[(middles > start) & (middles < end + TAIL_S)] = 0.98
    return speech


def test_stretches_of_talk_end_at_pauses_and_not_at_closures_within_words() -> None:
    edges = edges_of(spoken((1, 3), (3.05, 5), (5.5, 8), (9, 9.05)), NOTHING, 0.1)
    assert edges.starts_s == pytest.approx([1, 5.5], abs=STEP_S)
    assert edges.ends_s == pytest.approx([5, 8], abs=STEP_S)
    doubtful = spoken((1, 3)) * np.float32(0.45)
    assert not len(edges_of(doubtful, NOTHING, 0.1).starts_s)


def test_a_word_is_the_worst_place_and_silence_costs_nothing() -> None:
    edges = edges_of(spoken((2, 5), (5.4, 8), (11, 14)), NOTHING, 0.1)
    for cost in (edges.entering, edges.leaving):
        word, phrase, silence = cost(np.array([3.5, 5.2, 9.5]))
        assert word > 0.9
        assert 0 < phrase < IN_SENTENCE
        assert silence == 0
    assert (edges.entering(np.array([0.5, 19.0])) == 0).all()


def test_room_to_breathe_is_before_the_first_word_and_after_the_last() -> None:
    edges = edges_of(spoken((2, 5)), NOTHING, 0.2)
    late, early = edges.entering(np.array([1.95, 1.7]))
    assert 0.1 < late < BREATHLESS
    assert early == 0
    soon, settled = edges.leaving(np.array([5.05, 5.3]))
    assert 0.1 < soon < BREATHLESS
    assert settled == 0
    assert edges.entering(np.array([1.7]), faded_s=1.0) > 0.1  # a fade would swallow the word


def test_the_edge_of_a_word_that_is_left_out_is_kept_off() -> None:
    edges = edges_of(spoken((2, 5), (7, 9)), NOTHING, 0.1)
    at_the_edge, beyond = edges.entering(np.array([5.01, 5.1]))
    assert at_the_edge > 0.15
    assert beyond == 0
    at_the_edge, before = edges.leaving(np.array([6.99, 6.9]))
    assert at_the_edge > 0.15
    assert before == 0


def test_flashes_are_worse_than_words() -> None:
    edges = edges_of(NOTHING, np.array([4.0, 4.04]), 0.1)
    costs = edges.entering(np.array([3.8, 3.97, 4.02, 4.1, 4.3]))
    assert costs == pytest.approx([0, 2, 2, 2, 0])


def test_a_slow_frame_of_a_flash_is_kept_off_for_as_long_as_it_is_on_show() -> None:
    edges = edges_of(NOTHING, np.array([4.0]), 0.1, frame_s=0.1)
    assert edges.leaving(np.array([3.8, 4.02, 4.1, 4.14, 4.2])) == pytest.approx([0, 2, 2, 2, 0])


def test_nothing_known_costs_nothing() -> None:
    times = np.linspace(0, 100, 50)
    for edges in (Edges(), edges_of(NOTHING, NOTHING, 0.1), edges_of(spoken(seconds=5), NOTHING, 0.1)):
        assert not edges.entering(times).any()
        assert not edges.leaving(times).any()
        assert not edges.talk_in(0, 100)
