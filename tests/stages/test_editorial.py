"""The timeline beside a reel: read by the official library, it names the frames that the reel shows."""

import math
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import opentimelineio as otio
import pytest

from pipeline import edl, fcpxml
from stages.audio import RATE, pieces
from stages.container import open_source
from stages.editorial import Media, media_of, timeline, write_timeline
from stages.frames import Frames
from stages.probe import describe
from stages.timeline import Slot
from tests.media import make_video, read_counter, read_pictures
from tests.stages.test_render import Redden, edit_list, render

SPANS, OVERLAPS = [(3, 40), (45, 80), (80, 99)], [0, 9, 0]
MEDIA = Media("/films/a.mp4", Frames(Fraction(25), 0.0), 20.0, (640, 360), True)


def slot(start_s, count, first=0, overlap=0, effect="cut", clip=0, fps=25):
    return Slot(clip, start_s, start_s + count / fps, first, count, overlap, effect)


def build(media, slots, fps=Fraction(25), clips=None):
    return timeline([media] * len(slots), slots, fps, (640, 360), clips or {}, {})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("film.mp4", {"fps": 23.976}),
        ("ntsc.mkv", {"fps": 29.97}),
        ("fast.mp4", {"fps": 59.94, "audio": None}),
        ("late.ts", {"start_s": 100.0}),
        ("lean.mp4", {"options": {"x264-params": "bframes=3"}}),
    ],
)
def test_the_timeline_names_the_frames_that_the_reel_shows(tmp_path, name, options):
    facts = make_video(tmp_path / name, seconds=100 / float(options.get("fps", 25)), **options)
    row = render(facts, tmp_path / "out", SPANS, OVERLAPS)
    made = otio.adapters.read_from_file(str(row["files"]["reel.otio"]))
    shown = read_pictures(row["files"]["reel.mp4"])
    rate = float(facts.fps)
    assert made.duration() == otio.opentime.RationalTime(len(shown), rate)
    assert made.global_start_time == otio.opentime.RationalTime(0, rate)
    kinds = [track.kind for track in made.tracks]
    assert kinds == ["Video", "Audio"] if facts.audio else ["Video"]
    for track in made.tracks:
        clips = list(track.find_clips())
        ranges = [(c.source_range.start_time.value, c.source_range.duration.value) for c in clips]
        # The nine shared frames: four before the cut from the clip that comes, five after it from the other.
        assert ranges == [(3, 32), (49, 31), (80, 19)]
        assert {clip.media_reference.target_url for clip in clips} == {facts.path.as_uri()}
        places = [track.range_of_child(clip).start_time.value for clip in clips]
        for clip, place in zip(clips, places, strict=True):
            assert clip.source_range.start_time.rate == rate
            clean = place + (5 if clip is clips[1] else 0)  # past the transition
            wanted = clip.source_range.start_time.value + clean - place
            assert read_counter(shown[int(clean)]) == wanted
        available = clips[0].available_range()
        assert available.start_time.value == 0
        assert available.duration.value == pytest.approx(100, abs=1)


def test_a_transition_reaches_into_what_both_clips_have_beyond_the_cut(tmp_path):
    facts = make_video(tmp_path / "a.mp4", audio=None)
    row = render(facts, tmp_path / "out", SPANS, OVERLAPS)
    track = otio.adapters.read_from_file(str(row["files"]["reel.otio"])).video_tracks()[0]
    (transition,) = (item for item in track if isinstance(item, otio.schema.Transition))
    assert transition.name == "ripple"
    assert transition.transition_type == otio.schema.TransitionTypes.SMPTE_Dissolve
    assert (transition.in_offset.value, transition.out_offset.value) == (4, 5)
    for clip in track.find_clips():
        shown = track.trimmed_range_of_child(clip)
        assert shown.duration == clip.source_range.duration
        assert clip.available_range().contains(clip.source_range)


def test_sound_that_leads_or_trails_is_cut_where_that_of_the_reel_is():
    slots = [slot(1.0, 50), slot(6.0, 40, first=50, clip=1), slot(18.4, 40, first=90, clip=2)]
    slots.append(slot(15.0, 30, first=125, overlap=5, effect="whip", clip=3))
    for number, lead_s in ((1, 0.33), (2, -0.2)):
        slots[number] = replace(slots[number], sound_lead_s=lead_s)
    made = build(MEDIA, slots)
    (sound,) = made.audio_tracks()
    heard = pieces(slots, Fraction(25), 0.0)
    for clip, piece in zip(sound.find_clips(), heard, strict=True):
        # The transition is cut through its middle here, and is whole in what is heard.
        head, tail = piece.fade_in.samples * 2 // 5, piece.fade_out.samples * 3 // 5
        at, span = sound.range_of_child(clip), clip.source_range
        assert at.start_time.to_seconds() * RATE == pytest.approx(piece.at + head, abs=0.01)
        assert span.start_time.to_seconds() == pytest.approx(piece.start_s + head / RATE, abs=1e-6)
        assert span.duration.to_seconds() * RATE == pytest.approx(piece.count - head - tail, abs=0.01)
        assert clip.available_range().contains(span)
    pictures = [clip.source_range.start_time.value for clip in made.video_tracks()[0].find_clips()]
    assert pictures == [25, 150, 460, 377]
    plain = build(MEDIA, [replace(one, sound_lead_s=0.0) for one in slots])
    assert edl.write(made) == edl.write(plain)
    assert fcpxml.write(made) == fcpxml.write(plain)


def test_times_between_frames_are_those_that_the_cutter_takes():
    media = replace(MEDIA, frames=Frames(Fraction(30000, 1001), 0.0))
    made = build(media, [slot(1.01, 30, fps=29.97)], media.frames.fps)
    start = next(iter(made.find_clips())).source_range.start_time
    assert start.value == math.ceil(1.01 * 29.97)
    late = build(replace(MEDIA, frames=Frames(Fraction(25), 0.3)), [slot(1.3, 10)])
    assert next(iter(late.find_clips())).source_range.start_time.value == 25


def test_a_source_of_another_rate_is_counted_at_its_own():
    media = replace(MEDIA, frames=Frames(Fraction(120), 0.0))
    slots = [slot(1.0, 60, fps=60), slot(4.0, 30, first=50, overlap=10, effect="whip", clip=1, fps=60)]
    made = build(media, slots, Fraction(60))
    ranges = [clip.source_range for clip in made.video_tracks()[0].find_clips()]
    assert [(r.start_time.value, r.duration.value, r.start_time.rate) for r in ranges] == [
        (120, 110, 120),
        (490, 50, 120),
    ]
    assert made.duration().to_seconds() == pytest.approx(80 / 60)


def test_the_timecode_of_a_camera_is_where_its_source_begins():
    made = build(replace(MEDIA, timecode="10:00:00:00"), [slot(2.0, 25)])
    clip = next(iter(made.find_clips()))
    assert clip.available_range().start_time.value == 36_000 * 25
    assert clip.source_range.start_time.value == 36_000 * 25 + 50
    assert next(iter(build(replace(MEDIA, timecode="noon"), [slot(2.0, 25)]).find_clips())).available_range()


def test_a_timecode_is_found_by_the_probe(tmp_path):
    facts = make_video(tmp_path / "a.mov", seconds=1, audio=None)
    path = tmp_path / "camera.mov"
    with av.open(str(facts.path)) as source, av.open(str(path), "w") as output:
        output.metadata["timecode"] = "01:02:03:04"
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    with open_source(str(path)) as source:
        assert describe(source)["timecode"] == "01:02:03:04"
    with open_source(facts.uri) as source:
        assert describe(source)["timecode"] is None


@pytest.mark.parametrize(
    ("uri", "url", "name"),
    [
        ("https://ann:secret@host/a%20b.mp4?X-Amz-Signature=f00", "https://host/a%20b.mp4", "a%20b.mp4"),
        ("s3://bucket/2026/a b.mp4", "s3://bucket/2026/a b.mp4", "a b.mp4"),
        ("/films/a b#1\n.mp4", "file:///films/a%20b%231%0A.mp4", "a b#1.mp4"),
    ],
)
def test_a_source_is_named_without_its_login(tmp_path, uri, url, name):
    path = tmp_path / "reel.otio"
    write_timeline(build(replace(MEDIA, uri=uri), [slot(0.0, 25)]), path)
    text = path.read_text()
    assert "secret" not in text
    assert "f00" not in text
    clip = next(iter(otio.adapters.read_from_file(str(path)).find_clips()))
    assert (clip.media_reference.target_url, clip.name) == (url, name)


def test_score_and_reason_are_a_marker_and_the_grade_is_named(tmp_path):
    facts = make_video(tmp_path / "a.mp4", seconds=3, audio=None, shots=2)
    spans = [(5, 20), (40, 60)]
    plan = edit_list(facts, spans)["clips"]
    row = render(facts, tmp_path / "out", spans, grade=Redden())
    made = otio.adapters.read_from_file(str(row["files"]["reel.otio"]))
    grades = [clip.metadata["reelmap"]["grade"] for clip in made.video_tracks()[0].find_clips()]
    assert grades == ["grade-0.cube", "grade-1.cube"]
    assert all(name in row["files"] for name in grades)
    slots = [slot(0.2, 15), slot(1.6, 20, first=15, clip=1)]
    clips = {n: clip | {"why": "ranked 1", "thumbnail_s": 1.8 * n} for n, clip in enumerate(plan)}
    first, second = build(MEDIA, slots, clips=clips).video_tracks()[0].find_clips()
    (marker,) = second.markers
    assert (marker.name, marker.comment) == ("ranked 1", "score 1.00")
    assert marker.marked_range.start_time.value == 45
    assert first.markers[0].marked_range.start_time.value == 5  # its best moment lies before it
    assert second.metadata["reelmap"]["score"] == pytest.approx(1.0)


def test_a_row_says_what_there_is_to_know_of_its_source():
    probe = {"fps_exact": "25/1", "duration_s": 9.0, "width": 64, "height": 36, "audio_codec": None}
    row = {"uri": "a.mp4", "probe": probe, "shard_log": [{"start_s": 0.25}], "duration_s": 8.0}
    media = media_of(row)
    assert (media.frames.first_s, media.duration_s, media.size, media.audio) == (0.25, 8.0, (64, 36), False)
    lost = media_of(row | {"shard_log": [{"start_s": float(np.nan)}]})
    assert lost.frames.first_s == 0
