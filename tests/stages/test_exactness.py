"""Whatever a source is made of: every frame of a reel is the right one, its sound stands to the sample."""

import av
import pytest

from stages import render
from tests.exactness import KINDS, examine

SLOW = ("HDR, PQ", "HDR, HLG")  # their tone maps take seconds each
# Where sound might drift, or where picture and sound are counted in clocks of their own.
MANY = (
    "H.264 29.97",
    "59.94",
    "variable rate",
    "29.97 in milliseconds",
    "edit list",
    "MPEG-2 program stream",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in KINDS]
)
def test_every_frame_is_the_right_one_and_sound_is_in_step_after_many_cuts(tmp_path, name):
    kind, cuts = KINDS[name], 40 if name in MANY else 6 if KINDS[name].silent else 14
    found = examine(kind, tmp_path, cuts)
    assert found.cuts == cuts
    assert found.frames > 2 * found.cuts
    assert found.frame_error == 0
    if kind.silent:
        assert found.sync_s is None
        return
    # Where frames come at any time, the reel shows each on its own grid: to the nearest half frame.
    assert found.sync_s <= (0.001 if kind.even else 0.5 / 25 + 0.001)
    assert found.sound_samples <= kind.clock
    with av.open(str(tmp_path / "out" / "reel.mp4")) as file:
        video, audio = file.streams.video[0], file.streams.audio[0]
        ends_s = [float(stream.duration * stream.time_base) for stream in (video, audio)]
    assert ends_s[0] == pytest.approx(ends_s[1], abs=0.025)


def test_the_measure_sees_a_wrong_frame_and_sound_that_is_off(tmp_path, monkeypatch):
    kind = KINDS["H.264 29.97"]
    read = render.read_span

    def late(uri, span, *arguments):
        return read(uri, (span[0] + 1 / 29.97, span[1] + 1 / 29.97), *arguments)

    monkeypatch.setattr(render, "read_span", late)
    found = examine(kind, tmp_path, 14)
    assert found.frame_error == 1
    assert found.sync_s == pytest.approx(1 / 29.97, abs=0.001)
    assemble = render.assemble
    monkeypatch.setattr(render, "read_span", read)

    def early(uri, slots, *arguments):
        moved = [render.replace(slot, start_s=slot.start_s + 10 / 48000) for slot in slots]
        return assemble(uri, moved, *arguments)

    monkeypatch.setattr(render, "assemble", early)
    found = examine(kind, tmp_path, 14)
    assert (found.frame_error, found.sound_samples) == (0, 10)
