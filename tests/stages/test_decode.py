"""Analysis decoding: every frame once, cuts where they are, times as the file says."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from stages.container import LimitSettings
from stages.decode import DecodeSettings, decode
from stages.failure import Dropped, Failed
from stages.gather import merge
from stages.probe import probe
from tests.media import MediaFacts, Shot, make_audio_only, make_empty, make_text, make_truncated, make_video

LIMITS = LimitSettings()
SHORT_SHARDS = DecodeSettings(shard_seconds=4.0)


def shards(path: Path, settings: DecodeSettings = SHORT_SHARDS) -> list[dict]:
    listed = {"video_id": "v", "settings_key": "k", "uri": str(path), "failure": None}
    return [decode(row, settings, LIMITS) for row in probe(listed, LIMITS, settings.shard_s)]


def whole(path: Path, settings: DecodeSettings = SHORT_SHARDS) -> dict:
    rows = [
        row | {"features": np.empty((len(row["times_s"]), 4), np.float16), "codes": []}
        for row in shards(path, settings)
    ]
    return merge(rows, settings.min_coverage)


def index_first(path: Path) -> Path:
    """A copy with its index in front of the pictures, as a download that broke off has it."""
    copy = path.with_stem(path.stem + "_faststart")
    with av.open(str(path)) as source, av.open(str(copy), "w", options={"movflags": "faststart"}) as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return copy


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> MediaFacts:
    """20 s in 9 shots of odd lengths, keyframes every second or so: cuts on, before and after shard seams."""
    lengths = [3.0, 1.0, 0.04, 2.0, 1.96, 4.0, 4.08, 1.92, 2.0]
    looks = [Shot(seconds, look, speed=0.02) for look, seconds in enumerate(lengths)]
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    return make_video(path, seconds=20, shots=looks, gop=25)


def test_shards_decode_every_frame_exactly_once(film: MediaFacts) -> None:
    rows = shards(film.path)
    assert len(rows) == 5
    assert sum(row["frames_decoded"] for row in rows) == len(film.times_s)
    ends = [row["log"]["end_s"] for row in rows[:-1]]
    starts = [row["log"]["start_s"] for row in rows[1:]]
    assert ends == pytest.approx(starts, abs=1e-3)


def test_streams_without_an_index_lose_no_frame_at_a_seam(tmp_path: Path) -> None:
    """MPEG program streams: a seek lands anywhere, and keyframes are known only after a sequence header."""
    path = tmp_path / "a.mpg"
    with av.open(str(path), "w", format="vob") as out:
        stream = out.add_stream("mpeg2video", rate=25, options={"g": "12", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 255, (180, 640, 3), dtype=np.uint8)
        for number in range(500):
            picture = np.ascontiguousarray(noise[:, number % 320 :][:, :320])
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    rows = shards(path)
    assert len(rows) > 2
    assert sum(row["frames_decoded"] for row in rows) == 500


def test_shard_with_rare_keyframes_is_sampled_more_thinly(tmp_path: Path) -> None:
    path = make_video(tmp_path / "long_gop.mp4", seconds=12, gop=10_000, audio=None).path
    settings = DecodeSettings(size=32, fps=10, shard_seconds=2, shard_max_bytes=5 * 3 * 32**2)
    row = whole(path, settings)
    assert 10 <= len(row["times_s"]) <= 20
    assert row["times_s"][-1] > 10
    assert np.diff(row["times_s"]).max() < 1.7


def test_picture_shorter_than_its_sound_is_whole(tmp_path: Path) -> None:
    sound = np.zeros((9 * 48000, 1), np.float32)
    path = make_video(tmp_path / "short.mkv", seconds=6, audio=sound, audio_channels=1).path
    assert whole(path)["duration_s"] == pytest.approx(6, abs=0.1)


def test_shards_find_the_cuts_that_one_pass_finds(film: MediaFacts) -> None:
    together = whole(film.path)["cuts_s"]
    alone = whole(film.path, DecodeSettings(shard_seconds=60.0))["cuts_s"]
    assert together == pytest.approx(alone)
    truth = film.times_s[list(film.cuts)]
    clear = [cut for k, cut in enumerate(truth) if k not in (1, 2)]  # around the shot of one frame
    assert all(np.abs(together - cut).min() < 1e-3 for cut in clear)


def test_samples_are_even_and_carry_the_times_of_their_frames(film: MediaFacts) -> None:
    row = whole(film.path)
    assert np.diff(row["times_s"]) == pytest.approx(0.5, abs=0.041)
    assert all(np.abs(film.times_s - time).min() < 1e-6 for time in row["times_s"])
    assert len(row["thumbnails"]) == len(row["motion"]) == len(row["luma"]) == len(row["times_s"]) == 40


def test_decoding_without_the_loop_filter_finds_the_same_cuts(film: MediaFacts) -> None:
    exact, fast = (whole(film.path, DecodeSettings(quality=quality)) for quality in ("exact", "fast"))
    assert fast["cuts_s"] == pytest.approx(exact["cuts_s"])
    assert fast["times_s"] == pytest.approx(exact["times_s"])


def test_draft_decodes_fewer_frames_and_samples_as_often(film: MediaFacts) -> None:
    exact, draft = (whole(film.path, DecodeSettings(quality=quality)) for quality in ("exact", "draft"))
    assert draft["frames_decoded"] < 0.8 * exact["frames_decoded"]
    assert draft["times_s"] == pytest.approx(exact["times_s"], abs=0.13)


def test_time_starts_with_the_presentation(tmp_path: Path) -> None:
    facts = make_video(tmp_path / "late.ts", seconds=9, start_s=700.0, shots=2, gop=25)
    row = whole(facts.path)
    assert row["times_s"][0] == pytest.approx(facts.times_s[0], abs=1e-6)
    assert row["times_s"][0] < 0.1
    assert row["frames_decoded"] == len(facts.times_s)
    assert row["cuts_s"] == pytest.approx(facts.times_s[list(facts.cuts)], abs=1e-3)


def test_variable_rate_is_sampled_by_time(tmp_path: Path) -> None:
    facts = make_video(tmp_path / "vfr.mkv", seconds=8, vfr=True, gop=20)
    row = whole(facts.path)
    assert row["probe"]["variable_rate"]
    assert all(np.abs(facts.times_s - time).min() < 1e-6 for time in row["times_s"])
    assert row["duration_s"] == pytest.approx(facts.duration_s, abs=0.1)


def test_open_gop_loses_no_frame_at_a_seam(tmp_path: Path) -> None:
    options = {"x264-params": "open-gop=1:keyint=30:min-keyint=30:scenecut=0:bframes=3", "preset": "veryfast"}
    facts = make_video(tmp_path / "open.mp4", seconds=10, shots=3, options=options)
    assert whole(facts.path)["frames_decoded"] == len(facts.times_s)


def test_one_keyframe_for_many_shards_is_one_full_shard_and_empty_ones(tmp_path: Path) -> None:
    facts = make_video(tmp_path / "long_gop.mp4", seconds=9, gop=10_000)
    rows = shards(facts.path)
    assert [row["frames_decoded"] for row in rows] == [len(facts.times_s), 0]


def test_rotated_pictures_stand_upright(tmp_path: Path) -> None:
    upright = make_video(tmp_path / "a.mp4", seconds=2, size=(90, 160))
    turned = make_video(tmp_path / "b.mp4", seconds=2, size=(90, 160), rotation=90)
    first, second = whole(upright.path), whole(turned.path)
    assert (second["probe"]["width"], second["probe"]["height"]) == (turned.width, turned.height)
    assert second["probe"]["rotation"] in (90, 270)
    assert first["probe"]["rotation"] == 0


def test_square_pictures_of_the_asked_size_and_colours(tmp_path: Path) -> None:
    path = make_video(tmp_path / "odd.mp4", seconds=2, size=(161, 91), pixel_format="yuv444p").path
    rgb = shards(path, DecodeSettings(size=64))[0]["frames"]
    hsv = shards(path, DecodeSettings(size=64, colour="hsv"))[0]["frames"]
    assert rgb.shape == hsv.shape == (4, 64, 64, 3)
    assert hsv[..., 0].max() < 180
    assert hsv[..., 2] == pytest.approx(rgb.max(-1))


def test_loudness_per_half_second_follows_the_sound(tmp_path: Path) -> None:
    rate = 48000
    tone = 0.1 * np.sin(2 * np.pi * 1000 * np.arange(12 * rate) / rate)
    tone[: 4 * rate] = 0
    path = make_video(
        tmp_path / "tone.mp4", seconds=12, audio=tone[:, None].astype(np.float32), audio_channels=1, gop=25
    ).path
    loudness = whole(path)["loudness"]
    assert len(loudness) in (24, 25)
    assert loudness[:7].max() < -60
    # A sine of 1 kHz at -20 dBFS in one channel reads -23.0 LUFS (EBU Tech 3341); AAC may move it a little.
    assert loudness[9:23] == pytest.approx(-23.0, abs=0.7)


def test_silence_after_sound_is_silence_and_not_the_sound_before_it(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (3 * 48000, 2)).astype(np.float32)
    sound = np.concatenate([noise, np.zeros((5 * 48000, 2), np.float32)])
    path = tmp_path / "a.mp4"
    make_video(path, seconds=8, shots=1, audio=sound)
    loudness = whole(path, DecodeSettings())["loudness"]
    assert len(loudness) >= 15
    assert loudness[1:5].min() > -40
    assert loudness[8:].max() < -60


def test_silent_video_has_no_loudness(tmp_path: Path) -> None:
    path = make_video(tmp_path / "silent.mp4", seconds=2, audio=None).path
    assert len(whole(path)["loudness"]) == 0


def test_shard_length_is_bounded_by_bytes() -> None:
    assert DecodeSettings().shard_s == 60
    dense = DecodeSettings(fps=30)
    assert dense.shard_s * 30 * 256 * 256 * 3 <= dense.shard_max_bytes


@pytest.mark.parametrize("make", [make_empty, make_text])
def test_what_is_no_video_fails_with_words(tmp_path: Path, make: object) -> None:
    with pytest.raises(Failed, match=r"empty|cannot be opened"):
        shards(make(tmp_path / "bad.mp4"))


def test_audio_alone_is_dropped(tmp_path: Path) -> None:
    with pytest.raises(Dropped, match="audio only"):
        shards(make_audio_only(tmp_path / "sound.mp4"))


def test_video_cut_off_behind_its_index_fails_and_says_how_much_there_is(tmp_path: Path) -> None:
    source = index_first(make_video(tmp_path / "whole.mp4", seconds=12, gop=25).path)
    path = make_truncated(tmp_path / "cut_off.mp4", source, share=0.6)
    with pytest.raises(Failed, match=r"damaged or truncated: \d+\.\d s of 12\.0 s"):
        whole(path)
    there = whole(path, DecodeSettings(shard_seconds=4.0, min_coverage=0.0))
    assert 3 < there["duration_s"] < 11


def test_stream_without_an_index_counts_as_far_as_it_goes(tmp_path: Path) -> None:
    path = make_truncated(tmp_path / "cut_off.ts", make_video(tmp_path / "w.ts", seconds=8).path)
    row = whole(path)  # a transport stream has no header that knows better: what is there counts
    assert row["duration_s"] < 7


def test_one_frame_is_too_short(tmp_path: Path) -> None:
    path = make_video(tmp_path / "one.mp4", seconds=0.04, audio=None).path
    with pytest.raises(Dropped, match="too short"):
        whole(path)


def test_limits_are_kept(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", seconds=2).path
    row = {"video_id": "v", "uri": str(path)}
    for limits in (
        LimitSettings(max_pixels=100),
        LimitSettings(max_streams=1),
        LimitSettings(max_duration_s=1),
    ):
        with pytest.raises(Failed, match=r"limits\."):
            list(probe(row, limits, 60.0))


def test_two_frames_make_a_sample(tmp_path: Path) -> None:
    path = make_video(tmp_path / "two.mp4", seconds=0.08, audio=None).path
    row = whole(path)
    assert row["frames_decoded"] == 2
    assert len(row["times_s"]) == 1


def moving(folder: Path, speed: float, fps: int = 30) -> float:
    """Motion of a bright square that crosses a grey picture at `speed` picture widths a second."""
    return float(np.median(crossing(folder, lambda time_s: speed * time_s, fps)["motion"]))


def crossing(
    folder: Path,
    place: Callable[[float], float],
    fps: int = 30,
    cut_s: float = 99,
    settings: DecodeSettings = SHORT_SHARDS,
) -> dict[str, Any]:
    """The shard of 3 s of a bright square at `place` picture widths; from cut_s on before another grey."""
    path = folder / f"{uuid.uuid4()}.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", fps, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 320, 192, "yuv420p"
        for number in range(3 * fps):
            picture = np.full((192, 320, 3), 80 if number / fps < cut_s else 160, np.uint8)
            left = 20 + round(320 * place(number / fps))
            picture[60:110, left : left + 50] = 200
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        out.mux(stream.encode())
    return whole(path, settings)


def test_motion_grows_with_speed_and_hardly_depends_on_the_frame_rate(tmp_path: Path) -> None:
    still, slow, fast = (moving(tmp_path, speed) for speed in (0.0, 0.05, 0.25))
    assert still < 0.2 * slow
    assert slow < 0.5 * fast
    for fps in (10, 60):
        assert moving(tmp_path, 0.25, fps) == pytest.approx(fast, rel=0.25)


def test_what_moves_in_bursts_is_told_from_what_moves_evenly_as_far(tmp_path: Path) -> None:
    even = crossing(tmp_path, lambda time_s: 0.2 * time_s)
    bursts = crossing(tmp_path, lambda time_s: 0.1 * (time_s // 0.5 + max(0.0, time_s % 0.5 - 0.3) / 0.2))
    assert np.median(bursts["motion_std"]) > 3 * np.median(even["motion_std"])


@pytest.mark.parametrize("fps", [1, 8])
def test_bursts_are_seen_however_often_the_video_is_sampled(tmp_path: Path, fps: int) -> None:
    settings = DecodeSettings(fps=fps)
    even, bursts = (
        np.median(crossing(tmp_path, place, settings=settings)["motion_std"])
        for place in (
            lambda time_s: 0.2 * time_s,
            lambda time_s: 0.1 * (time_s // 0.5 + max(0.0, time_s % 0.5 - 0.3) / 0.2),
        )
    )
    assert bursts > 3 * even


def test_a_cut_is_no_burst(tmp_path: Path) -> None:
    cut = crossing(tmp_path, lambda time_s: 0.2 * time_s, cut_s=1.7)
    bursts = crossing(tmp_path, lambda time_s: 0.1 * (time_s // 0.5 + max(0.0, time_s % 0.5 - 0.3) / 0.2))
    assert len(cut["cuts_s"]) == 1
    assert cut["motion_std"].max() < np.median(bursts["motion_std"])


def test_the_first_sample_of_every_shard_has_the_motion_that_follows(film: MediaFacts) -> None:
    assert all(row["motion"][0] == row["motion"][1] > 0 for row in shards(film.path))
