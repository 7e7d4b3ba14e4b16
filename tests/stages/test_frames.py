"""Edit times on frames: picture and sound begin together, and no frame beyond an edit is shown."""

from fractions import Fraction

import numpy as np
import pytest

from stages.cutter import conform
from stages.frames import Frames, frames_of, on_frames
from stages.timeline import lay_out, output_rate


def edits_of(spans, overlap_s=0.0):
    found, at_s = [], 0.0
    for clip, (start_s, end_s) in enumerate(spans):
        shared_s = overlap_s if clip else 0.0
        found.append(
            {
                "clip": clip,
                "source_start_s": start_s,
                "source_end_s": end_s,
                "reel_start_s": at_s - shared_s,
                "transition": "whip" if shared_s else "cut",
                "transition_s": shared_s,
            }
        )
        at_s += end_s - start_s - shared_s
    return found


@pytest.mark.parametrize("rate", ["24000/1001", "25", "30000/1001", "60", "120", "240", "15", "6"])
@pytest.mark.parametrize("first_s", [0.0, 0.0837])
def test_a_clip_is_the_frames_on_show_in_it_and_the_reel_is_as_long_as_was_asked(rate, first_s):
    source = Frames(Fraction(rate), first_s)
    fps = output_rate(source.fps)
    rng = np.random.default_rng(1)
    starts = np.cumsum(rng.uniform(3, 4, 30))
    spans = [(float(s), float(s + rng.uniform(1.2, 2.5))) for s in starts]
    edits = on_frames(edits_of(spans, 0.3), [source] * len(spans), fps)
    slots = lay_out(edits, fps)
    step_s = max(1, round(source.fps / fps)) / float(source.fps)
    times = source.first_s + np.arange(int(130 * source.fps)) / float(source.fps)
    for slot, edit, (start_s, end_s) in zip(slots, edits, spans, strict=True):
        shown = times[(times > start_s - 1 / source.fps) & (times < end_s - 1e-3)]
        assert np.abs(times - slot.start_s).min() < 1e-9
        assert shown[0] - 1e-9 <= slot.start_s <= start_s + 1 / source.fps + 1e-9
        assert end_s - 2 * step_s - 1e-9 <= slot.end_s <= shown[-1] + step_s + 1e-9
        assert slot.end_s - slot.start_s == pytest.approx(float(slot.count / fps), abs=1e-9)
        assert edit["reel_start_s"] * fps == pytest.approx(slot.first, abs=1e-6)
    asked_s = sum(b - a for a, b in spans) - 29 * 0.3
    assert slots[-1].end / float(fps) == pytest.approx(asked_s, abs=max(step_s, 1 / float(fps)) + 1e-6)


def test_every_frame_that_the_cutter_takes_is_shown_once():
    source = Frames(Fraction(25), 0.02)
    (slot,) = lay_out(on_frames(edits_of([(1.03, 2.05)]), [source], source.fps), source.fps)
    frames = ((source.time_s(n), n) for n in range(100))
    shown = list(conform(frames, (slot.start_s, slot.end_s), slot.count, source.fps, source.fps))
    assert shown == [(n, 1) for n in range(26, 51)]
    assert source.time_s(51) >= 2.05 - 1e-3


def test_clips_that_follow_on_one_another_still_do():
    source = Frames(Fraction(30000, 1001), 0.0)
    for middle_s in np.linspace(2.3, 2.4, 21):
        a, b = on_frames(edits_of([(1.01, middle_s), (middle_s, 4.0)]), [source] * 2, source.fps)
        assert a["source_end_s"] == b["source_start_s"]


def test_sources_of_different_rates_keep_to_their_own_frames_and_the_reel_to_its_length():
    fps = Fraction(30000, 1001)
    sources = [
        Frames(Fraction(rate), first_s) for rate, first_s in (("25", 0.0), ("50", 0.013), ("24", 0.3))
    ] * 5
    spans = [(1.0137 + 0.11 * k, 2.5 + 0.1 * k) for k in range(15)]
    edits = on_frames(edits_of(spans), sources, fps)
    for slot, source, (start_s, end_s) in zip(lay_out(edits, fps), sources, spans, strict=True):
        number = (slot.start_s - source.first_s) * source.fps
        assert number == pytest.approx(round(number), abs=1e-6)
        assert start_s - 1 / source.fps <= slot.start_s <= start_s + 1 / source.fps
        assert slot.end_s <= end_s + 2 / source.fps
        assert slot.count / fps == pytest.approx(slot.end_s - slot.start_s, abs=0.5 / fps)
    asked_s = sum(b - a for a, b in spans)
    assert lay_out(edits, fps)[-1].end / fps == pytest.approx(asked_s, abs=0.1)
    # Two sources that are cut at one time do not go on from one another.
    _, b = on_frames(edits_of([(1.0, 2.035), (2.035, 3.0)]), sources[:2], fps)
    number = (b["source_start_s"] - 0.013) * 50
    assert number == pytest.approx(round(number), abs=1e-6)


def test_what_a_row_does_not_say_is_the_start():
    row = {"probe": {"fps_exact": "30000/1001"}}
    assert frames_of(row) == Frames(Fraction(30000, 1001), 0.0)
    for start_s in (None, float("nan")):
        assert frames_of(row | {"shard_log": [{"start_s": start_s}]}).first_s == 0
    assert frames_of(row | {"shard_log": [{"start_s": 0.5}]}).first_s == 0.5
