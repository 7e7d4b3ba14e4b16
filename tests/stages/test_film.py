"""A whole video through an effect: every frame in its place, every beep with its flash."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from stages import film
from stages.failure import Dropped, Failed
from stages.film import cuts_of, look_at, pieces_of, write_film
from stages.pulses import Pulse
from stages.render import RenderSettings
from tests.media import (
    Shot,
    hear_beeps,
    make_audio_only,
    make_text,
    make_truncated,
    make_video,
    presentation_times,
    read_counter,
    read_flash,
    read_pictures,
    read_samples,
)

CLEAR = RenderSettings(crf=14)


class Dimmed:
    """Stands in for the effects: a third of the light, and the numbers can still be read."""

    def shown(self, frame, effect, phase, strength=None, seed=0):
        return frame // 3 + 60


def written(facts, path: Path, pulses=(), settings=CLEAR):
    write_film(look_at(facts.uri), path, pulses, Dimmed(), 1.0, settings)
    return path


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("a.mp4", {"fps": 25}),
        ("b.mkv", {"fps": 29.97}),
        ("late.mp4", {"start_s": 3.0}),
        ("ts.ts", {"start_s": 10.0, "fps": 24}),
        ("sound_late.mkv", {"audio_start_s": 0.5}),
    ],
)
def test_every_frame_is_there_once_and_the_beeps_come_with_the_flashes(tmp_path, name, how):
    facts = make_video(tmp_path / name, seconds=4, **how)
    out = written(facts, tmp_path / "out.mp4", [Pulse(40, 10, "zoom")])
    pictures, (times_s, start_s) = read_pictures(out), presentation_times(out)
    assert [read_counter(picture) for picture in pictures] == [*range(len(facts.times_s))]
    assert start_s == pytest.approx(0, abs=1e-3)
    assert times_s == pytest.approx(np.arange(len(times_s)) / float(facts.fps), abs=1e-3)
    beeps = hear_beeps(read_samples(out), 48000)
    flashes = [times_s[n] for n, picture in enumerate(pictures) if read_flash(picture)]
    assert len(flashes) == 4
    heard = [flash for flash in flashes if flash >= how.get("audio_start_s", 0.0)]
    for flash in heard:
        assert np.abs(beeps - flash).min() < 0.012


def test_the_effect_is_on_show_when_it_should_be_and_never_else(tmp_path):
    facts = make_video(tmp_path / "a.mp4", seconds=3, audio=None)
    plain = np.stack(read_pictures(written(facts, tmp_path / "plain.mp4"))).astype(float)
    shown = np.stack(read_pictures(written(facts, tmp_path / "out.mp4", [Pulse(40, 10, "zoom")])))
    changed = np.flatnonzero(np.abs(shown - plain).mean((1, 2, 3)) > 6)
    assert changed.tolist() == list(range(35, 45))


def test_a_video_of_varying_rate_keeps_its_times(tmp_path):
    facts = make_video(tmp_path / "v.mkv", seconds=4, vfr=True)
    out = written(facts, tmp_path / "out.mp4")
    times_s, _ = presentation_times(out)
    for time_s, picture in zip(times_s, read_pictures(out), strict=True):
        source_s = facts.times_s[read_counter(picture)]
        assert source_s - 0.021 <= time_s  # shown no more than half a frame too early
    assert times_s[-1] == pytest.approx(facts.times_s[-1], abs=0.05)


def test_a_rotated_video_comes_out_upright(tmp_path):
    facts = make_video(tmp_path / "r.mp4", seconds=1, rotation=90, size=(160, 96))
    out = written(facts, tmp_path / "out.mp4")
    pictures = read_pictures(out)
    assert pictures[0].shape == (160, 96, 3)
    assert [read_counter(picture) for picture in pictures] == list(range(25))


def test_the_sound_is_as_loud_as_it_was(tmp_path):
    facts = make_video(tmp_path / "a.mp4", seconds=3, audio="noise")
    before, after = (
        read_samples(path)[4800:-4800] for path in (facts.path, written(facts, tmp_path / "out.mp4"))
    )
    assert after.std() == pytest.approx(before.std(), rel=0.03)


def test_the_pieces_of_the_sound_are_joined_without_a_seam(tmp_path, monkeypatch):
    monkeypatch.setattr(film, "SOUND_PIECE_S", 0.7)
    t = np.arange(3 * 44100) / 44100
    tone = np.repeat(0.3 * np.sin(2 * np.pi * 330 * t)[:, None], 2, axis=1).astype(np.float32)
    facts = make_video(tmp_path / "a.mp4", seconds=3, audio=tone, audio_rate=44100)
    assert len(pieces_of(look_at(facts.uri))) == 5
    samples = read_samples(written(facts, tmp_path / "out.mp4"))[4800:-4800, 0]
    level = np.sqrt(np.convolve(samples**2, np.full(1600, 1 / 1600), "valid"))
    assert np.ptp(level) < 0.03 * level.mean()
    assert np.abs(np.diff(samples, n=2)).max() < 0.003


def test_cuts_are_found_where_they_are(tmp_path):
    facts = make_video(tmp_path / "a.mp4", shots=[Shot(1.2, 0), Shot(1.0, 3), Shot(1.4, 5)], start_s=2.0)
    from_first_s = facts.cuts_s - facts.times_s[0]
    assert cuts_of(look_at(facts.uri)) == pytest.approx(from_first_s.tolist(), abs=1e-3)


def test_the_length_is_that_of_the_pictures_whatever_the_sound_has(tmp_path):
    sound = np.zeros((5 * 48000, 2), np.float32)
    facts = make_video(tmp_path / "a.mkv", seconds=2, audio=sound)
    found = look_at(facts.uri)
    assert found.duration_s == pytest.approx(2.0, abs=1e-3)
    assert found.frames == 50
    assert found.fps == Fraction(25)


def test_what_is_cut_off_is_written_as_far_as_it_goes(tmp_path):
    facts = make_video(tmp_path / "a.mkv", seconds=6, audio=None)
    cut_off = make_truncated(tmp_path / "cut.mkv", facts.path, 0.6)
    out = tmp_path / "out.mp4"
    write_film(look_at(str(cut_off)), out, [], Dimmed(), 1.0, CLEAR)
    shown = [read_counter(picture) for picture in read_pictures(out)]
    assert 30 < len(shown) < 140
    assert shown[:-10] == list(range(len(shown) - 10))


def test_what_is_no_video_is_refused_in_words(tmp_path):
    with pytest.raises(Failed, match="cannot be opened"):
        look_at(str(make_text(tmp_path / "t.mp4")))
    with pytest.raises(Dropped, match="audio only"):
        look_at(str(make_audio_only(tmp_path / "s.mp4")))
