"""Pulses of an effect: where they begin and end, how they run, and that all other frames are left alone."""

from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from stages.picture import from_rgb, to_rgb
from stages.pulses import ACCENT_PHASE, AccentSettings, Pulse, accents, periodic, pulsed, pulses_at
from stages.timeline import Slot


class Recorder:
    """Stands in for the effects: notes what it is asked and gives back a white frame."""

    def __init__(self):
        self.calls = []

    def shown(self, frame, effect, phase, strength=None, seed=0):
        self.calls.append((int(frame[0, 0, 0]), effect, phase, strength, seed))
        return np.full_like(frame, 255)


def frames(count: int) -> list[av.VideoFrame]:
    return [from_rgb(np.full((16, 16, 3), 2 * n, np.uint8)) for n in range(count)]


def test_an_accent_comes_and_goes_alike_on_both_sides():
    pulse = Pulse(20.5, 11, "zoom")
    phases = [pulse.phase(n) for n in range(pulse.first, pulse.end)]
    assert (pulse.first, pulse.end) == (15, 26)
    assert phases == pytest.approx(phases[::-1])
    assert max(phases) == pytest.approx(ACCENT_PHASE)
    assert 0 <= min(phases) < 0.05 * ACCENT_PHASE


def test_over_a_cut_the_old_shot_goes_out_and_the_new_one_comes_in():
    pulse = Pulse(20, 10, "whip", over_cut=True)
    phases = {n: pulse.phase(n) for n in range(pulse.first, pulse.end)}
    assert sorted(phases) == list(range(15, 25))
    out, back = [phases[n] for n in range(15, 20)], [phases[n] for n in range(20, 25)]
    assert out == sorted(out)
    assert 0 < out[0] < 0.1 < 0.4 < out[-1] < 0.5
    assert back == pytest.approx([-phase for phase in out[::-1]])


def test_a_ripple_runs_through_without_turning_back():
    pulse = Pulse(30, 20, "ripple")
    turned = [pulse.phase(n) % 1 for n in range(pulse.first, pulse.end)]
    assert turned == sorted(turned)


def test_a_pulse_at_the_very_start_begins_with_the_first_frame():
    assert Pulse(0, 10, "zoom").first == 0


def test_only_the_frames_of_a_pulse_are_changed():
    recorder, source = Recorder(), frames(40)
    pulses = pulses_at([0.4, 1.2], "spin", 0.2, Fraction(25))
    found = list(pulsed(source, pulses, recorder, 0.7))
    touched = [n for n, (a, b) in enumerate(zip(source, found, strict=True)) if a is not b]
    assert touched == [n for pulse in pulses for n in range(pulse.first, pulse.end)]
    assert len(touched) == 10
    assert all(to_rgb(found[n]).min() > 250 for n in touched)
    assert {call[1:2] + call[3:] for call in recorder.calls} == {("spin", 0.7, 0), ("spin", 0.7, 1)}


def test_pulses_too_close_share_the_time_between_them():
    pulses = pulses_at([2.0, 1.0, 1.4], "zoom", 0.8, Fraction(25))
    assert [pulse.middle for pulse in pulses] == [25, 35, 50]
    assert [pulse.frames for pulse in pulses] == [10, 10, 15]
    assert all(a.end <= b.first for a, b in pairwise(pulses))


@pytest.mark.parametrize(
    ("every_s", "duration_s", "times_s"),
    [(2, 6, [1, 3, 5]), (2, 6.5, [1, 3, 5]), (2, 7.5, [1, 3, 5, 7]), (4, 1, [0.5])],
)
def test_a_pulse_in_every_so_many_seconds(every_s, duration_s, times_s):
    assert periodic(every_s, duration_s) == times_s


def slots() -> tuple[list[Slot], dict]:
    slots = [Slot(0, 10.0, 14.0, 0, 100, 0, "cut"), Slot(1, 20.0, 24.0, 90, 100, 10, "whip")]
    clips = {0: {"score": 0.4, "thumbnail_s": 12.0}, 1: {"score": 0.9, "thumbnail_s": 20.1}}
    return slots, clips


def test_accents_are_off_unless_asked_for_and_then_on_the_best_clip():
    laid, clips = slots()
    assert accents(laid, clips, Fraction(25), AccentSettings()) == {}
    found = accents(laid, clips, Fraction(25), AccentSettings(clips=1))
    assert list(found) == [1]
    assert set(accents(laid, clips, Fraction(25), AccentSettings(clips=9))) == {0, 1}


def test_an_accent_lies_on_the_strongest_moment_but_in_no_transition():
    laid, clips = slots()
    found = accents(laid, clips, Fraction(25), AccentSettings(clips=2, length_s=0.4))
    assert found[0].middle == 50.5
    assert found[1].first >= 10  # the moment itself lies in the transition
    late = {**clips, 0: {"score": 1.0, "thumbnail_s": 13.9}}
    assert accents(laid, late, Fraction(25), AccentSettings(clips=1))[0].end <= 90
