"""Smart rendering: what is copied is the source's bit for bit, and no decoder stumbles at a seam."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from stages.container import LimitSettings, open_source
from stages.encode import Form, ReelWriter
from stages.picture import BT470BG, BT709, LIMITED, PQ, Colours, Look
from stages.render import Render, RenderSettings
from stages.splice import (
    NO_RUN,
    SPS,
    Copier,
    SpliceWriter,
    exp_golomb,
    numbers_of,
    parameter_sets,
    units,
    unlike,
)
from stages.timeline import Slot, lay_out
from tests.exactness import edits_of, measure, row_of
from tests.media import make_video, read_counter, read_pictures
from tests.stages.test_render import Redden, render

HD = "colorprim=bt709:transfer=bt709:colormatrix=bt709:range=tv"
SPANS = [(3, 70), (74, 130), (131, 190), (190, 240)]  # the last two are joined
COPY = RenderSettings(copy_video=True, encoder="libx264")
KINDS = {
    "closed.mp4": {"fps": 29.97, "options": {"x264-params": HD}},
    "pyramid.mkv": {"options": {"x264-params": f"{HD}:bframes=5:b-pyramid=2:ref=5"}},
    "no_b.mp4": {"b_frames": 0, "options": {"x264-params": HD}},
    "stream.ts": {"options": {"x264-params": HD}, "start_s": 40.0},
    "film.mov": {"fps": 23.976, "shots": 5, "gop": 250, "options": {"x264-params": HD}},
    "weighted.mp4": {"options": {"x264-params": f"{HD}:cabac=0:weightp=0:aud=1", "profile": "main"}},
    "slices.ts": {"options": {"x264-params": f"{HD}:slices=4:sps-id=3"}},
}


def spliced(tmp_path, name, options, spans=SPANS, settings=COPY):
    facts = make_video(
        tmp_path / name, **{"seconds": 250 / float(options.get("fps", 25)), "gop": 24} | options
    )
    (tmp_path / "out").mkdir()
    row = Render(settings, None, None)(row_of(facts, edits_of(facts, spans)), tmp_path / "out")
    return facts, row, row["files"]["reel.mp4"]


def planes(path):
    """Every frame of a file as it is decoded, u8[n, H * 3 / 2, W]. Raises for the least damage."""
    with av.open(str(path)) as file:
        context = file.streams.video[0].codec_context
        context.options = {"err_detect": "explode"}
        return np.stack([frame.to_ndarray() for frame in file.decode(video=0)])


def same_as_source(facts, row):
    """For each frame of the reel whether it is the source's, bit for bit."""
    source, reel = planes(facts.path), planes(row["files"]["reel.mp4"])
    numbers = [read_counter(picture) for picture in read_pictures(row["files"]["reel.mp4"])]
    return np.array([np.array_equal(frame, source[n]) for frame, n in zip(reel, numbers, strict=True)])


@pytest.mark.parametrize("name", KINDS)
def test_copied_frames_are_those_of_the_source_and_all_are_the_right_ones(tmp_path, name):
    facts, row, reel = spliced(tmp_path, name, KINDS[name])
    assert row["reel"]["not_copied"] is None
    copied = round(row["reel"]["copied_s"] * facts.fps)
    found = measure(facts, row, reel)
    assert (found.frames, found.frame_error, found.sound_samples) == (sum(b - a for a, b in SPANS), 0, 0)
    same = same_as_source(facts, row)
    assert same.sum() >= copied > found.frames // 3
    # The frames between are encoded anew, which cannot be lossless.
    assert not same.all()


@pytest.mark.parametrize("name", ["closed.mp4", "pyramid.mkv", "slices.ts"])
def test_a_decoder_meets_nothing_strange_from_any_keyframe_on(tmp_path, name):
    facts, _, reel = spliced(tmp_path, name, KINDS[name])
    with av.open(str(reel)) as file:
        stream = file.streams.video[0]
        sets, _ = parameter_sets(stream.codec_context.extradata)
        assert [unit[0] & 31 for unit in sets] == [7, 7, 8, 8]
        assert len(numbers_of(sets)) == 2
        packets = [packet for packet in file.demux(stream) if packet.size]
        keys = [packet.pts for packet in packets if packet.is_keyframe]
        dts = [packet.dts for packet in packets]
        assert dts == sorted(set(dts))
        assert all(packet.dts <= packet.pts for packet in packets)
        assert (file.start_time, stream.start_time, stream.frames) == (0, 0, len(packets))
    end = len(packets)
    for key in keys:
        with av.open(str(reel)) as file:
            stream = file.streams.video[0]
            stream.codec_context.options = {"err_detect": "explode"}
            file.seek(key, stream=stream)
            frames = list(file.decode(stream))
        assert frames[0].pts == key
        assert len(frames) == end - round(key * stream.time_base * facts.fps)
        assert not any(frame.is_corrupt for frame in frames)


def test_an_open_gop_is_copied_from_its_first_idr_picture_only(tmp_path):
    options = {"options": {"x264-params": f"{HD}:open-gop=1:bframes=3"}, "gop": 12}
    facts, row, _ = spliced(tmp_path, "open.ts", options, [(0, 100), (110, 200)])
    assert 90 <= row["reel"]["copied_s"] * 25 <= 100  # there is but one: the first picture
    same = same_as_source(facts, row)
    assert same[:90].all()
    assert not same[100:].any()


def test_transitions_are_encoded_and_what_is_between_them_is_copied(tmp_path):
    facts = make_video(tmp_path / "a.mp4", seconds=10, gop=20, audio=None, options={"x264-params": HD})
    spans, overlaps = [(0, 100), (120, 200)], [0, 10]
    row = render(facts, tmp_path / "out", spans, overlaps, settings=COPY)
    shown = planes(row["files"]["reel.mp4"])
    source = planes(facts.path)
    assert len(shown) == 170
    assert np.array_equal(shown[:85], source[:85])
    assert np.array_equal(shown[115:165], source[145:195])
    assert not any(np.array_equal(shown[n], source[n]) for n in range(90, 100))
    with av.open(str(row["files"]["poster.jpg"])) as file:
        poster = next(file.decode(video=0)).to_ndarray(format="rgb24")
    assert read_counter(poster) == 120 + 40  # out of a part that is copied
    assert {"storyboard.jpg", "thumbnails.vtt"} < set(row["files"])


def test_single_clips_are_spliced_too(tmp_path):
    settings = COPY.model_copy(update={"clips": True})
    facts, row, _ = spliced(tmp_path, "a.mp4", KINDS["closed.mp4"], settings=settings)
    assert [read_counter(p) for p in read_pictures(row["files"]["clip-001.mp4"])] == [*range(74, 130)]
    assert row["reel"]["copied_s"] > 2
    assert facts.audio


def test_a_stream_that_changes_on_the_way_is_copied_up_to_there(tmp_path):
    """Two broadcasts one after the other: the second one has other parameter sets under the same number."""
    one = make_video(tmp_path / "one.ts", seconds=4, gop=20, audio=None, options={"x264-params": HD})
    two = make_video(
        tmp_path / "two.ts",
        seconds=4,
        gop=20,
        audio=None,
        start_s=4.0,
        options={"x264-params": f"{HD}:ref=1:cabac=0:bframes=0"},
    )
    both = tmp_path / "both.ts"
    both.write_bytes(one.path.read_bytes() + two.path.read_bytes())
    with open_source(str(both)) as source:
        end_s = float(source.container.duration / av.time_base)
    assert end_s > 7
    copier = Copier(str(both), Fraction(25), LimitSettings(), "")
    edit = {"clip": 0, "source_start_s": 0.0, "source_end_s": 8.0, "reel_start_s": 0.0}
    (slot,) = lay_out([edit | {"transition": "cut", "transition_s": 0.0}], Fraction(25))
    assert 90 <= copier.find(slot, 0, 200).end <= 100
    assert copier.find(slot, 105, 200) is None


def test_what_an_edit_list_leaves_out_is_not_copied(tmp_path):
    path = make_video(
        tmp_path / "a.mp4", seconds=4, gop=20, audio=None, options={"x264-params": f"{HD}:bframes=3"}
    ).path
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12  # past version and count
    data[at : at + 4] = struct.pack(">I", struct.unpack(">I", data[at : at + 4])[0] // 2)
    path.write_bytes(data)
    copier = Copier(str(path), Fraction(25), LimitSettings(), "")
    run = copier.find(Slot(0, 0.0, 4.0, 0, 100, 0, "cut"), 0, 100)
    assert 40 < run.end <= 50


def test_a_source_that_holds_nothing_to_copy_says_so(tmp_path, monkeypatch):
    options = {"options": {"x264-params": f"{HD}:open-gop=1:bframes=3"}, "gop": 12}
    settings = COPY.model_copy(update={"clips": True})
    _, row, _ = spliced(tmp_path, "open.ts", options, [(30, 60)], settings)
    assert (row["reel"]["copied_s"], row["reel"]["not_copied"]) == (0, NO_RUN)
    taken = [bytes([SPS, 66, 0, 30, *number]) for number in numbers(32)]
    for sets, words in (([], "holds no parameter sets"), (taken, "all 32 numbers")):
        monkeypatch.setattr("stages.splice.parameter_sets", lambda _, sets=sets: (sets, 4))
        again = tmp_path / words.split()[0]
        again.mkdir()
        facts = make_video(again / "b.mp4", seconds=2, audio=None, options={"x264-params": HD})
        row = render(facts, again / "out", [(3, 40)], settings=COPY)
        assert row["reel"]["copied_s"] == 0
        assert words in row["reel"]["not_copied"]


def numbers(count):
    """0 up to count as ue(v) of H.264, in two bytes each."""
    for number in range(count):
        bits = f"{number + 1:b}"
        yield int(("0" * (len(bits) - 1) + bits).ljust(16, "1"), 2).to_bytes(2, "big")


@pytest.mark.parametrize("kind", ["encoded", "spliced"])
def test_a_writer_that_cannot_begin_leaves_nothing_open(tmp_path, kind):
    facts = make_video(tmp_path / "a.mp4", seconds=1, audio=None, options={"x264-params": HD})
    form = Form(320, 180, Fraction(25), "libx264", 20, "veryfast")
    copier = Copier(facts.uri, Fraction(25), LimitSettings(), "")
    more = (copier,) if kind == "spliced" else ()
    before = set(Path("/dev/fd").iterdir())
    with pytest.raises(IndexError) as error:  # its sound is a file that has none
        (SpliceWriter if more else ReelWriter)(tmp_path / "reel.mp4", form, [], facts.path, *more)
    assert set(Path("/dev/fd").iterdir()) == before
    assert error.tb is not None  # which holds what was opened


def test_every_reason_not_to_copy_is_said():
    facts = {"video_codec": "h264", "pixel_format": "yuv420p", "coded_width": 160, "coded_height": 90}
    facts |= {"fps_exact": "25/1", "variable_rate": False}
    good = (
        facts,
        Colours(LIMITED, BT709, BT709, BT709),
        Look(160, 90),
        Form(160, 90, Fraction(25), "libx264", 20, ""),
    )

    def reason(graded=False, look=good[2], colours=good[1], form=good[3], **changes):
        return unlike(facts | changes, colours, look, form, graded)

    assert reason() == ""
    for text, words in (
        (reason(video_codec="hevc"), "hevc, not h264"),
        (reason(pixel_format="yuv420p10le"), "yuv420p10le"),
        (reason(graded=True), "colour.kind to none"),
        (reason(look=Look(160, 90, rotation=180)), "turned"),
        (reason(look=Look(160, 90, deinterlace=True)), "interlaced"),
        (reason(look=Look(80, 44)), "scaled"),
        (reason(variable_rate=True), "varies"),
        (reason(fps_exact="120/1"), "25 frames/s"),
        (reason(colours=Colours(LIMITED, BT709, BT709, BT470BG)), "BT.709"),
        (reason(colours=Colours(LIMITED, BT709, PQ, 9)), "BT.709"),
        (reason(form=Form(160, 90, Fraction(25), "h264_nvenc", 20, "")), "render.encoder to libx264"),
    ):
        assert words in text


def test_what_cannot_be_copied_is_rendered_and_says_why(tmp_path):
    facts = make_video(tmp_path / "a.webm", seconds=2, audio=None)
    row = render(facts, tmp_path / "out", [(3, 40)], settings=COPY)
    assert [read_counter(p) for p in read_pictures(row["files"]["reel.mp4"])] == [*range(3, 40)]
    assert (row["reel"]["copied_s"], row["reel"]["not_copied"]) == (0, "the source is vp9, not h264")
    plain = make_video(tmp_path / "b.mp4", seconds=2, audio=None, options={"x264-params": HD})
    graded = render(plain, tmp_path / "graded", [(3, 40)], settings=COPY, grade=Redden())
    assert "graded" in graded["reel"]["not_copied"]
    never = render(plain, tmp_path / "never", [(3, 40)])
    assert (never["reel"]["copied_s"], never["reel"]["not_copied"]) == (0, None)


def test_units_are_told_apart_in_both_forms():
    assert units(b"\0\0\0\1\x67ab\0\0\1\x68c\0\0\0\1\x65d\0\0\3e", 0) == [
        b"\x67ab",
        b"\x68c",
        b"\x65d\0\0\3e",
    ]
    assert units(b"\0\0\0\2\x65a\0\0\0\1\x06", 4) == [b"\x65a", b"\x06"]
    assert [exp_golomb(bytes([byte])) for byte in (0b10000000, 0b01000000, 0b01100000, 0b00100000)] == [
        0,
        1,
        2,
        3,
    ]
