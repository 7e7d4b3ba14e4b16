"""Reels of our own media: every frame carries its number, every flash has its beep."""

from fractions import Fraction

import av
import numpy as np
import pytest

from stages import cutter
from stages.container import open_source
from stages.encode import choose_encoder
from stages.failure import Failed
from stages.probe import describe
from stages.pulses import AccentSettings
from stages.render import Render, RenderSettings
from stages.timeline import lay_out, output_rate
from tests.media import (
    hear_beeps,
    make_truncated,
    make_video,
    presentation_times,
    read_counter,
    read_flash,
    read_pictures,
    read_samples,
)

SPANS = [(3, 20), (27, 41), (41, 55), (60, 62), (70, 95)]  # none begins on a keyframe; two are joined
CLEAR = RenderSettings(crf=14)


def edit_list(facts, spans, overlaps=None):
    """Edits and clips for spans of frame numbers; overlaps in frames."""
    edits, at_s = [], 0.0
    for clip, (first, end) in enumerate(spans):
        start_s = float(facts.times_s[first])
        end_s = float(facts.times_s[end]) if end < len(facts.times_s) else facts.duration_s
        overlap_s = float(overlaps[clip] / facts.fps) if overlaps else 0.0
        at_s -= overlap_s
        edits.append(
            {
                "clip": clip,
                "source_start_s": start_s,
                "source_end_s": end_s,
                "reel_start_s": at_s,
                "transition": "ripple" if overlap_s else "cut",
                "transition_s": overlap_s,
            }
        )
        at_s += end_s - start_s
    clips = [{"clip": n, "shot": n, "score": 1 - abs(n - 1) / 10} for n in range(len(spans))]
    return {"edits": edits, "clips": clips}


def render(facts, folder, spans=SPANS, overlaps=None, settings=CLEAR, grade=None, effects=None):
    with open_source(facts.uri) as source:
        probe = describe(source)
    folder.mkdir(exist_ok=True)
    log = [{"start_s": float(facts.times_s[0])}]
    row = {"uri": facts.uri, "probe": probe, "shard_log": log, **edit_list(facts, spans, overlaps)}
    return Render(settings, grade, effects)(row, folder)


def numbers(spans):
    return [n for first, end in spans for n in range(first, end)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain.mp4", {}),
        ("turned.mp4", {"rotation": 90, "audio": None}),
        ("odd.mkv", {"size": (161, 91), "pixel_format": "yuv444p", "audio": None}),
        ("rgb.mkv", {"size": (161, 91), "pixel_format": "bgr0", "codec": "ffv1", "audio": None}),
        ("wide.mp4", {"sample_aspect_ratio": (4, 3), "audio": None}),
        ("deep.mkv", {"codec": "libx265", "pixel_format": "yuv420p10le", "audio": None}),
        ("phone.mp4", {"audio_rate": 44100, "audio_channels": 1, "audio_start_s": 0.3}),
    ],
)
def test_a_reel_holds_exactly_the_frames_of_its_edits_and_sound_in_step(tmp_path, name, options):
    facts = make_video(tmp_path / name, **options)
    row = render(facts, tmp_path / "out")
    reel = row["files"]["reel.mp4"]
    pictures = read_pictures(reel)
    assert [read_counter(picture) for picture in pictures] == numbers(SPANS)
    assert (pictures[0].shape[1], pictures[0].shape[0]) == (facts.width // 2 * 2, facts.height // 2 * 2)

    times_s, start_s = presentation_times(reel)
    assert start_s == 0
    assert times_s == pytest.approx(np.arange(len(times_s)) / float(facts.fps), abs=1e-6)
    flashes = [n for n, picture in enumerate(pictures) if read_flash(picture)]
    assert flashes == [n for n, number in enumerate(numbers(SPANS)) if number in facts.flashes]
    assert flashes
    with av.open(str(reel)) as file:
        video = file.streams.video[0]
        assert (video.average_rate, len(file.chapters())) == (facts.fps, len(SPANS))
        context = video.codec_context
        tags = (context.color_range, context.color_primaries, context.color_trc, context.colorspace)
        assert tags == (1, 1, 1, 1)
        assert bool(file.streams.audio) == facts.audio
        if facts.audio:
            audio = file.streams.audio[0]
            video_s, audio_s = (float(s.duration * s.time_base) for s in (video, audio))
            assert audio_s == pytest.approx(video_s, abs=0.05)
    if facts.audio:
        beeps = hear_beeps(read_samples(reel), 48000)
        for flash in flashes:
            assert np.abs(beeps - times_s[flash]).min() < 0.005
        assert row["reel"]["loudness_lufs"] == pytest.approx(-16, abs=0.5)
        assert row["reel"]["true_peak_dbtp"] < -1
    else:
        assert row["reel"]["loudness_lufs"] is None


def test_a_reel_out_of_order_with_leading_sound_stays_in_step(tmp_path):
    facts = make_video(tmp_path / "a.mp4", seconds=8)
    spans = [(120, 150), (20, 44), (70, 100)]  # no beep where sound leads or trails
    with open_source(facts.uri) as source:
        row = {"uri": facts.uri, "probe": describe(source), **edit_list(facts, spans)}
    row["edits"][1]["sound_lead_s"], row["edits"][2]["sound_lead_s"] = 0.2, -0.2
    (tmp_path / "out").mkdir()
    reel = Render(CLEAR, None, None)(row, tmp_path / "out")["files"]["reel.mp4"]
    pictures = read_pictures(reel)
    assert [read_counter(picture) for picture in pictures] == numbers(spans)
    flashes = [n / 25 for n, picture in enumerate(pictures) if read_flash(picture)]
    assert hear_beeps(read_samples(reel), 48000) == pytest.approx(flashes, abs=0.005)


def test_sound_far_off_its_picture_is_refused(tmp_path):
    facts = make_video(tmp_path / "a.mp4", seconds=4)
    edits = edit_list(facts, [(0, 20), (40, 60)])["edits"]
    edits[1]["sound_lead_s"] = 0.5
    with pytest.raises(Failed, match="off its picture"):
        lay_out(edits, facts.fps)


def test_variable_rate_shows_what_was_on_show(tmp_path):
    facts = make_video(tmp_path / "v.mkv", seconds=6, vfr=True)
    spans = [(3, 20), (30, 70), (80, 100)]  # the second holds one frame for a second
    row = render(facts, tmp_path / "out", spans)
    shown = [read_counter(picture) for picture in read_pictures(row["files"]["reel.mp4"])]
    slots = lay_out(row["edits"], facts.fps)
    assert len(shown) == slots[-1].end
    for slot, (first, end) in zip(slots, spans, strict=True):
        part = shown[slot.first : slot.end]
        assert part[0] == first
        assert max(part) < end
        wanted_s = facts.times_s[first] + np.arange(slot.count) / float(facts.fps)
        late_s = wanted_s - facts.times_s[part]
        until_s = facts.times_s[np.array(part) + 1] - wanted_s
        assert late_s.min() > -0.0211  # half a frame: rounded to the nearest
        assert until_s[:-1].min() > -0.0211
    assert shown.count(int(np.argmax(np.diff(facts.times_s)))) >= 24


def test_frames_shared_by_two_clips_come_from_the_effect_and_no_others_do(tmp_path):
    class Recorder:
        accents = AccentSettings()

        def __init__(self):
            self.calls = []

        def transition(self, a, b, effect, phase, strength=None, seed=0):
            self.calls.append((read_counter(a), read_counter(b), effect, phase))
            return b if phase > 0.5 else a

    facts = make_video(tmp_path / "a.mp4", fps=30, seconds=5)
    spans, overlaps = [(3, 40), (60, 90), (100, 130)], [0, 8, 5]
    recorder = Recorder()
    row = render(facts, tmp_path / "out", spans, overlaps, effects=recorder)
    pairs = [(call[0], call[1]) for call in recorder.calls]
    assert pairs == [(32 + k, 60 + k) for k in range(8)] + [(85 + k, 100 + k) for k in range(5)]
    phases = [call[3] for call in recorder.calls[:8]]
    assert phases == sorted(phases)
    assert 0 < phases[0] < 0.2 < 0.8 < phases[-1] < 1
    shown = [read_counter(picture) for picture in read_pictures(row["files"]["reel.mp4"])]
    assert shown == [*range(3, 36), *range(64, 88), *range(103, 130)]
    assert len(shown) == 37 + 30 + 30 - 13
    assert row["reel"]["duration_s"] == pytest.approx(84 / 30)


def test_an_accent_is_on_the_strongest_moment_of_the_best_clip_alone(tmp_path):
    class Whitening:
        accents = AccentSettings(clips=1, length_s=0.2)

        def shown(self, frame, effect, phase, strength=None, seed=0):
            assert (effect, seed) == ("zoom", 1)
            return 255 - (255 - frame) // 4

        def transition(self, a, b, effect, phase, strength=None, seed=0):
            raise AssertionError("there are only cuts")

    facts = make_video(tmp_path / "a.mp4")
    with open_source(facts.uri) as source:
        row = {"uri": facts.uri, "probe": describe(source), **edit_list(facts, [(3, 20), (27, 57)])}
    for clip in row["clips"]:
        clip["thumbnail_s"] = float(facts.times_s[40])
    (tmp_path / "out").mkdir()
    reel = Render(CLEAR, None, Whitening())(row, tmp_path / "out")["files"]["reel.mp4"]
    light = np.array([picture[20:].min() for picture in read_pictures(reel)])
    assert np.flatnonzero(light > 150).tolist() == [17 + 40 - 27 + k for k in (-2, -1, 0, 1, 2)]


class Redden:
    """Stands in for the colour model: looks at the frames and takes green and blue away."""

    def luts(self, shots):
        self.shots = shots
        axis = np.linspace(0, 1, 9, dtype=np.float32)
        blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
        return [np.stack([red, green * 0.5, blue * 0.25], -1) for _ in shots]


def test_every_shot_is_graded_by_its_own_cube(tmp_path):
    facts = make_video(tmp_path / "a.mp4", seconds=3, audio=None, shots=2)
    grade = Redden()
    spans = [(5, 20), (40, 60)]
    graded = render(facts, tmp_path / "graded", spans, grade=grade)
    plain = render(facts, tmp_path / "plain", spans)
    source = read_pictures(facts.path)
    for shot, (first, end) in zip(grade.shots, spans, strict=True):
        assert shot.shape[1:] == (256, 256, 3)
        assert all(first <= read_counter(picture) < end for picture in shot)
        middle = source[(first + end) // 2]
        assert shot[1].mean((0, 1)) == pytest.approx(middle.mean((0, 1)), abs=6)
    a, b = (np.stack(read_pictures(r["files"]["reel.mp4"])).mean((0, 1, 2)) for r in (plain, graded))
    assert b == pytest.approx(a * [1, 0.5, 0.25], abs=4)
    assert {"grade.cube", "grade-0.cube", "grade-1.cube"} < set(graded["files"])
    assert "grade.cube" not in plain["files"]


def test_colours_stay_what_they_were(tmp_path):
    facts = make_video(tmp_path / "a.mp4", seconds=1, audio=None)
    row = render(facts, tmp_path / "out", [(0, 25)])
    # What players assume for an untagged small source is BT.601: so does the reader of the source.
    before = np.stack(read_pictures(facts.path))
    with av.open(str(row["files"]["reel.mp4"])) as file:
        after = np.stack([f.to_ndarray(format="rgb24") for f in file.decode(video=0)])
    assert after.mean((0, 1, 2)) == pytest.approx(before.mean((0, 1, 2)), abs=2.5)


def test_poster_and_single_clips_are_written(tmp_path):
    facts = make_video(tmp_path / "a.mp4")
    settings = RenderSettings(crf=14, clips=True)
    row = render(facts, tmp_path / "out", settings=settings)
    names = {"reel.mp4", "reel.otio", "poster.jpg", "storyboard.jpg", "thumbnails.jpg", "thumbnails.vtt"}
    names |= {f"clip-{n:03d}.mp4" for n in range(len(SPANS))}
    assert set(row["files"]) == names
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    with av.open(str(row["files"]["poster.jpg"])) as file:
        poster = next(file.decode(video=0)).to_ndarray(format="rgb24")
    assert read_counter(poster) == 27 + 7  # the middle of the best clip, number 1
    assert [read_counter(p) for p in read_pictures(row["files"]["clip-004.mp4"])] == [*range(70, 95)]


def test_max_height_and_the_encoder_that_was_used(tmp_path):
    facts = make_video(tmp_path / "a.mp4", size=(320, 180), seconds=1, audio=None)
    row = render(facts, tmp_path / "out", [(2, 20)], settings=RenderSettings(max_height=90))
    assert (row["reel"]["width"], row["reel"]["height"]) == (160, 90)
    assert row["reel"]["encoder"] == choose_encoder("auto", 160, 90, facts.fps)
    with pytest.raises(Failed, match=r"set render\.encoder"):
        choose_encoder("h264_of_tomorrow", 160, 90, Fraction(25))


def test_a_clip_late_in_a_long_video_costs_no_full_decode(tmp_path, monkeypatch):
    facts = make_video(tmp_path / "long.mp4", seconds=40, fps=30, audio=None, gop=60, size=(96, 54))
    decoded = []
    whole = cutter._decoded
    monkeypatch.setattr(cutter, "_decoded", lambda source: (decoded.append(f) or f for f in whole(source)))
    row = render(facts, tmp_path / "out", [(1130, 1140)])
    assert [read_counter(p) for p in read_pictures(row["files"]["reel.mp4"])] == [*range(1130, 1140)]
    assert len(decoded) < 150  # of 1200, in two passes over the span


def test_what_cannot_be_rendered_says_why(tmp_path):
    facts = make_video(tmp_path / "a.mkv", audio=None, seconds=6)
    with open_source(facts.uri) as source:
        probe = describe(source)
    cut_off = make_truncated(tmp_path / "cut.mkv", facts.path, 0.3)
    row = {"uri": str(cut_off), "probe": probe, **edit_list(facts, [(0, 10), (100, 140)])}
    with pytest.raises(Failed, match=r"decoded between 4\.000|video ends"):
        Render(CLEAR, None, None)(row, tmp_path)
    with pytest.raises(Failed, match="empty"):
        Render(CLEAR, None, None)(row | {"edits": []}, tmp_path)
    contradiction = [row["edits"][0] | {"source_end_s": 3.0}, row["edits"][1]]
    with pytest.raises(Failed, match="contradict"):
        Render(CLEAR, None, None)(row | {"edits": contradiction}, tmp_path)


def test_output_rates_are_bounded_and_stay_exact():
    assert output_rate(Fraction(30000, 1001)) == Fraction(30000, 1001)
    assert output_rate(Fraction(120000, 1001)) == Fraction(60000, 1001)
    assert output_rate(Fraction(240)) == 60
    assert output_rate(Fraction(1)) == 10


@pytest.mark.slow
def test_hdr_is_shown_as_sdr_and_not_graded(tmp_path):
    hdr10 = "log-level=none:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:range=limited"
    facts = make_video(
        tmp_path / "hdr.mp4",
        seconds=1,
        audio=None,
        codec="libx265",
        pixel_format="yuv420p10le",
        options={"x265-params": hdr10},
    )
    row = render(facts, tmp_path / "out", [(2, 20)], grade=Redden())
    assert "grade.cube" not in row["files"]
    with av.open(str(row["files"]["reel.mp4"])) as file:
        context = file.streams.video[0].codec_context
        assert (context.color_primaries, context.color_trc, context.colorspace) == (1, 1, 1)
        pictures = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert [read_counter(picture) for picture in pictures] == [*range(2, 20)]
    assert pictures[0].max() > 235  # a code of 235 is brighter than SDR goes
