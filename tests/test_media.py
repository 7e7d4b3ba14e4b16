"""The test media say of themselves what is in them, and it is."""

import av
import numpy as np
import pytest

from stages.container import open_source
from stages.failure import Dropped, Failed
from tests.media import (
    Shot,
    hear_beeps,
    make_audio_only,
    make_empty,
    make_text,
    make_truncated,
    make_video,
    read_counter,
    read_flash,
    read_pictures,
    read_samples,
)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ntsc.mp4", {"fps": 23.976, "shots": 2}),
        ("vfr.mkv", {"vfr": True}),
        ("odd.mkv", {"size": (161, 91), "pixel_format": "yuv444p"}),
        ("late.ts", {"start_s": 50.0}),
        ("ten.mkv", {"codec": "libx265", "pixel_format": "yuv420p10le"}),
        ("vp9.webm", {"fps": 29.97}),
    ],
)
def test_every_frame_carries_its_number_and_beeps_begin_with_flashes(tmp_path, name, options):
    facts = make_video(tmp_path / name, seconds=2.4, **options)
    pictures = read_pictures(facts.path)
    assert [read_counter(picture) for picture in pictures] == list(range(len(facts.times_s)))
    assert tuple(np.flatnonzero([read_flash(picture) for picture in pictures])) == facts.flashes
    assert hear_beeps(read_samples(facts.path), 48000) == pytest.approx(facts.beeps_s, abs=0.002)


def test_a_counter_survives_scaling_and_a_mixed_picture_has_none(tmp_path):
    facts = make_video(tmp_path / "a.mp4", seconds=2, audio=None, shots=2)
    pictures = read_pictures(facts.path)
    assert read_counter(pictures[37][::2, ::2]) == 37
    with pytest.raises(ValueError, match="counter"):
        read_counter(pictures[5] // 2 + pictures[26] // 2)


def test_rotation_aspect_and_cuts_are_as_asked(tmp_path):
    facts = make_video(tmp_path / "r.mp4", shots=[Shot(1.0, 3), Shot(0.6, 4)], rotation=90, audio=None)
    with av.open(str(facts.path)) as file:
        assert next(file.decode(video=0)).rotation == -90
    assert (facts.width, facts.height, facts.cuts) == (90, 160, (25,))
    wide = make_video(tmp_path / "w.mp4", seconds=0.2, sample_aspect_ratio=(4, 3), audio=None)
    with av.open(str(wide.path)) as file:
        assert file.streams.video[0].sample_aspect_ratio * 160 == pytest.approx(wide.width, abs=1)


def test_broken_files_are_broken(tmp_path):
    whole = make_video(tmp_path / "whole.mp4", seconds=1).path
    for path in (make_empty(tmp_path / "e.mp4"), make_text(tmp_path / "t.mp4")):
        with pytest.raises(Failed), open_source(str(path)):
            pass
    with pytest.raises(Failed), open_source(str(make_truncated(tmp_path / "c.mp4", whole))):
        pass
    with pytest.raises(Dropped), open_source(str(make_audio_only(tmp_path / "a.mp4"))):
        pass
