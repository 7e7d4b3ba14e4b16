"""Reels over videos of all kinds: exactly the frames of the edits, one size, one rate, one level."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import opentimelineio as otio
import pytest

from stages.audio import read_samples as read_samples_of
from stages.container import open_source
from stages.failure import Failed
from stages.medley import Medley, Take, TakesFailed, form_of
from stages.probe import describe
from stages.render import Render, RenderSettings
from tests.media import (
    MediaFacts,
    hear_beeps,
    make_film,
    make_truncated,
    make_video,
    read_counter,
    read_flash,
    read_pictures,
    read_samples,
)
from tests.stages.test_reframe import RADIUS, red, with_disc

CLEAR = RenderSettings(crf=14)
PLAIN = Medley(Render(CLEAR, None, None))


def take(facts: MediaFacts, name: str | None = None) -> Take:
    with open_source(facts.uri) as source:
        probe = describe(source)
    log = [{"start_s": float(facts.times_s[0])}]
    return Take(facts.path.name, facts.uri, "", name or facts.path.stem, probe, shard_log=log)


def edit_list(spans: list[tuple[MediaFacts, float, float]], overlap_s: float = 0.0) -> dict:
    edits, clips, at_s = [], [], 0.0
    for number, (facts, start_s, end_s) in enumerate(spans):
        overlap = overlap_s if number else 0.0
        at_s -= overlap
        edits.append(
            {
                "clip": number,
                "video_id": facts.path.name,
                "source_start_s": start_s,
                "source_end_s": end_s,
                "reel_start_s": at_s,
                "transition": "dissolve" if overlap else "cut",
                "transition_s": overlap,
            }
        )
        at_s += end_s - start_s
        clips.append(
            {
                "clip": number,
                "shot": number,
                "score": 0.5,
                "video_id": facts.path.name,
                "thumbnail_s": start_s,
            }
        )
    videos = {facts.path.name: facts for facts, _, _ in spans}
    return {"edits": edits, "clips": clips, "takes": [take(facts) for facts in videos.values()]}


def render(spans: list, folder: Path, medley: Medley = PLAIN, overlap_s: float = 0.0) -> dict:
    folder.mkdir(exist_ok=True)
    return medley(edit_list(spans, overlap_s), folder)


def middle(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """The part of a canvas that a fitted picture of that size takes."""
    top, left = (picture.shape[0] - height) // 4 * 2, (picture.shape[1] - width) // 4 * 2
    return picture[top : top + height, left : left + width]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, MediaFacts]:
    folder = tmp_path_factory.mktemp("kinds")
    made = {
        "plain.mp4": {"size": (320, 180)},
        "small.mkv": {"size": (160, 90), "fps": 29.97, "audio_rate": 44100},
        "fast.mp4": {"size": (320, 180), "fps": 50, "audio": None},
        "turned.mp4": {"size": (320, 180), "rotation": 90},
        "deep.mkv": {"size": (320, 180), "codec": "libx265", "pixel_format": "yuv420p10le"},
        "odd.mkv": {"size": (161, 91), "pixel_format": "yuv444p", "audio": None},
        "late.ts": {"size": (320, 180), "start_s": 100.0},
        "vfr.mkv": {"size": (320, 180), "vfr": True, "audio": None},
    }
    return {name: make_video(folder / name, seconds=4, **options) for name, options in made.items()}


def test_every_kind_shows_the_frames_of_its_edit_in_one_form(kinds: dict, tmp_path: Path) -> None:
    spans = [(facts, 1.0, 2.0) for facts in kinds.values()]
    row = render(spans, tmp_path / "out")
    reel = row["reel"]
    assert (reel["width"], reel["height"], reel["fps"]) == (320, 180, 25.0)
    pictures = read_pictures(row["files"]["reel.mp4"])
    assert len(pictures) == 25 * len(kinds)
    for number, facts in enumerate(kinds.values()):
        shown = []
        for picture in pictures[25 * number : 25 * (number + 1)]:
            upright = facts.height > facts.width
            shown.append(read_counter(middle(picture, 102 if upright else 320, 180)))
        at = np.array(shown)
        expected = np.searchsorted(facts.times_s, 1.0 + np.arange(25) / 25 + 1e-3, side="right") - 1
        assert np.abs(at - expected).max() <= 1, facts.path.name
        assert np.all(np.diff(at) >= 0)


def test_sound_is_in_step_and_what_has_none_is_silent(kinds: dict, tmp_path: Path) -> None:
    names = ("plain.mp4", "fast.mp4", "small.mkv", "late.ts")
    row = render([(kinds[name], 0.5, 2.5) for name in names], tmp_path / "out")
    pictures = read_pictures(row["files"]["reel.mp4"])
    flashes = [n / 25 for n, picture in enumerate(pictures) if read_flash(picture)]
    beeps = hear_beeps(read_samples(row["files"]["reel.mp4"]), 48000)
    silent = [beep for beep in beeps if 2.02 < beep < 3.98]
    assert not silent
    heard = [flash for flash in flashes if not 2.0 <= flash < 4.0]
    assert len(heard) >= 4
    for flash in heard:
        assert np.abs(beeps - flash).min() < 0.04
    assert row["reel"]["loudness_lufs"] == pytest.approx(-16, abs=0.5)
    assert row["reel"]["true_peak_dbtp"] < -1


def test_loud_and_quiet_videos_come_out_alike(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).standard_normal((48000 * 4, 2)).astype(np.float32)
    loud = make_video(tmp_path / "loud.mp4", audio=0.2 * noise)
    quiet = make_video(tmp_path / "quiet.mp4", audio=0.06 * noise)
    row = render([(loud, 0.0, 3.0), (quiet, 0.0, 3.0)], tmp_path / "out")
    samples = read_samples(row["files"]["reel.mp4"])
    first, second = (np.sqrt(np.mean(samples[at : at + 48000] ** 2)) for at in (48000, 4 * 48000))
    assert 20 * abs(np.log10(first / second)) < 1.5
    assert row["reel"]["loudness_lufs"] == pytest.approx(-16, abs=0.5)


def test_without_any_sound_there_is_no_track(kinds: dict, tmp_path: Path) -> None:
    row = render([(kinds["fast.mp4"], 0, 1), (kinds["odd.mkv"], 0, 1)], tmp_path / "out")
    assert row["reel"]["loudness_lufs"] is None
    with av.open(str(row["files"]["reel.mp4"])) as file:
        assert not file.streams.audio


def test_the_form_is_that_of_most_seconds_and_as_large_as_a_third_of_them(kinds: dict) -> None:
    small, plain, turned = (kinds[name] for name in ("small.mkv", "plain.mp4", "turned.mp4"))

    def form(spans: list) -> tuple:
        row = edit_list(spans)
        return form_of(row["edits"], {one.video_id: one for one in row["takes"]})

    ntsc = Fraction(30000, 1001)
    assert form([(turned, 0, 0.5), (small, 0, 2), (plain, 0, 1.2)]) == ((320, 180), ntsc)
    assert form([(turned, 0, 0.5), (small, 0, 2), (plain, 0, 0.5)]) == ((160, 90), ntsc)


def test_shapes_that_a_bar_would_tell_apart_are_two(kinds: dict) -> None:
    row = edit_list([(kinds["plain.mp4"], 0, 2), (kinds["small.mkv"], 0, 2), (kinds["odd.mkv"], 0, 2.5)])
    for one, size in zip(row["takes"], [(90, 160), (1000, 1600), (1001, 1599)], strict=True):
        one.probe["width"], one.probe["height"] = size
    takes = {one.video_id: one for one in row["takes"]}
    assert form_of(row["edits"], takes)[0] == (1001, 1599)
    row["takes"][1].probe["width"] = 901
    assert form_of(row["edits"], takes)[0] == (901, 1600)


def test_another_shape_stands_on_a_darker_copy_of_itself(kinds: dict, tmp_path: Path) -> None:
    row = render([(kinds["plain.mp4"], 0, 2), (kinds["turned.mp4"], 1, 2)], tmp_path / "out")
    picture = read_pictures(row["files"]["reel.mp4"])[60]
    inside, side = middle(picture, 102, 180)[60:].mean(), picture[60:, 10:90].mean()
    assert 0.25 * inside < side < 0.8 * inside
    read_counter(middle(picture, 102, 180))


def test_an_aspect_is_that_of_the_reel_and_every_video_is_framed_for_it(tmp_path: Path) -> None:
    """A disc that crosses a wide film, and an upright film beside it."""
    course = np.linspace(45, 275, 50)
    wide = make_film(tmp_path / "wide.mp4", [with_disc(x) for x in course], 25)
    upright = make_video(tmp_path / "upright.mp4", size=(180, 320), seconds=2)
    row = edit_list([(upright, 0, 2)])
    with open_source(str(wide)) as source:
        row["takes"].append(Take("wide", str(wide), "", "wide", describe(source)))
    more = {"clip": 1, "video_id": "wide", "source_end_s": 2.0, "reel_start_s": 2.0}
    row["edits"].append(row["edits"][0] | more)
    row["clips"].append(row["clips"][0] | {"clip": 1, "shot": 1, "video_id": "wide"})
    made = {}
    for fit in ("crop", "blur"):
        (tmp_path / fit).mkdir()
        settings = RenderSettings(crf=12, aspect="9:16", fit=fit)
        made[fit] = Medley(Render(settings, None, None))(row, tmp_path / fit)
        assert (made[fit]["reel"]["width"], made[fit]["reel"]["height"]) == (180, 320)
    cropped, barred = (read_pictures(made[fit]["files"]["reel.mp4"]) for fit in ("crop", "blur"))
    assert len(cropped) == len(barred) == 100
    read_counter(cropped[10])  # what has that shape fills the frame either way
    read_counter(barred[10])
    area = np.pi * (RADIUS * 320 / 180) ** 2
    assert min(red(picture).sum() for picture in cropped[50:]) > 0.9 * area
    assert red(barred[75][110:210]).sum() == pytest.approx(area * (180 / 320) ** 4, rel=0.2)
    assert barred[75][:100].mean() < 0.7 * barred[75][110:210].mean()


def test_picture_and_sound_of_a_take_begin_on_one_frame(kinds: dict, tmp_path: Path) -> None:
    """Edits between frames, of sources whose grids differ, in a reel of yet another rate."""
    names = ("plain.mp4", "small.mkv", "late.ts")
    spans = [(kinds[name], 0.513 + 0.007 * n, 2.487) for n, name in enumerate(names)]
    row = render(spans, tmp_path / "out")
    for edit, (facts, start_s, _) in zip(row["edits"], spans, strict=True):
        assert np.abs(facts.times_s - edit["source_start_s"]).min() < 1e-3
        assert abs(edit["source_start_s"] - start_s) < 1 / facts.fps
    flashes = [n / 25 for n, p in enumerate(read_pictures(row["files"]["reel.mp4"])) if read_flash(p)]
    beeps = hear_beeps(read_samples(row["files"]["reel.mp4"]), 48000)
    assert len(flashes) >= 3
    # A flash is up to half of the reel's frames off; a source's frame more was lost before.
    assert all(np.abs(beeps - flash).min() < 0.025 for flash in flashes)


def test_the_colours_of_every_video_become_those_of_the_reel(tmp_path: Path) -> None:
    wide_tags = "colorprim=bt2020:transfer=bt2020-10:colormatrix=bt2020nc:range=limited"
    plain, wide = (
        make_video(tmp_path / name, seconds=1, audio=None, options={"x264-params": tags})
        for name, tags in (
            ("plain.mp4", "colorprim=bt709:transfer=bt709:colormatrix=bt709"),
            ("wide.mp4", wide_tags),
        )
    )
    row = render([(wide, 0, 1), (plain, 0, 1)], tmp_path / "out")
    with av.open(str(row["files"]["reel.mp4"])) as file:
        context = file.streams.video[0].codec_context
        assert (context.color_primaries, context.color_trc, context.colorspace) == (1, 1, 1)
        shown = [frame.to_ndarray(format="rgb24")[40:] for frame in file.decode(video=0)]
    spread = [float(np.ptp(picture.mean((0, 1)))) for picture in (shown[5], shown[30])]
    alone = render([(plain, 0, 1)], tmp_path / "alone")
    assert spread[1] == pytest.approx(
        float(np.ptp(read_pictures(alone["files"]["reel.mp4"])[5][40:].mean((0, 1)))), abs=1
    )
    assert spread[0] > spread[1] + 1  # the same numbers of wider primaries are stronger colours


def test_the_timeline_names_every_source_and_is_silent_where_it_is(kinds: dict, tmp_path: Path) -> None:
    spans = [(kinds["plain.mp4"], 1.0, 2.0), (kinds["fast.mp4"], 0.5, 1.5), (kinds["late.ts"], 2.0, 3.0)]
    row = edit_list(spans)
    row["clips"][1]["stored"] = 17
    (tmp_path / "out").mkdir()
    made = PLAIN(row, tmp_path / "out")
    timeline = otio.adapters.read_from_file(str(made["files"]["reel.otio"]))
    picture, sound = timeline.tracks
    assert [clip.media_reference.target_url for clip in picture] == [
        facts.path.as_uri() for facts, *_ in spans
    ]
    starts = [clip.source_range.start_time for clip in picture]
    assert [(start.value, start.rate) for start in starts] == [(25, 25), (25, 50), (50, 25)]
    assert [type(item) for item in sound] == [otio.schema.Clip, otio.schema.Gap, otio.schema.Clip]
    assert sound.duration().to_seconds() == pytest.approx(picture.duration().to_seconds()) == 3
    assert picture[1].metadata["reelmap"]["clip"] == 17


def test_sound_that_cannot_be_read_is_said_of_its_video(
    kinds: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(source: object, start_s: float, count: int) -> np.ndarray:
        if "late" in source.container.name:
            raise Failed("it is gone")
        return read_samples_of(source, start_s, count)

    monkeypatch.setattr("stages.medley.read_samples", read)
    with pytest.raises(TakesFailed) as error:
        render([(kinds["plain.mp4"], 0, 1), (kinds["late.ts"], 0, 1)], tmp_path / "out")
    assert error.value.reasons == {"late.ts": "late: it is gone"}


def test_reels_of_a_few_dozen_lines_have_captions_or_none(tmp_path: Path) -> None:
    medley = Medley(Render(CLEAR, None, None), captions=True)
    for size in ((96, 64), (64, 36)):
        facts = make_video(tmp_path / f"{size[1]}.mp4", size=size, seconds=1, audio=None)
        row = render([(facts, 0, 1)], tmp_path / f"out{size[1]}", medley)
        assert (row["reel"]["width"], row["reel"]["height"]) == size


def test_clips_overlap_in_transitions_across_videos(kinds: dict, tmp_path: Path) -> None:
    spans = [(kinds["plain.mp4"], 0, 2), (kinds["turned.mp4"], 1, 3), (kinds["fast.mp4"], 0, 2)]
    row = render(spans, tmp_path / "out", overlap_s=0.4)
    assert row["reel"]["duration_s"] == pytest.approx(5.2)
    assert len(read_pictures(row["files"]["reel.mp4"])) == 130


def test_captions_name_the_video_and_are_clear_of_transitions(kinds: dict, tmp_path: Path) -> None:
    spans = [(kinds["plain.mp4"], 0, 2.4), (kinds["fast.mp4"], 1, 3)]
    bare = read_pictures(render(spans, tmp_path / "bare", overlap_s=0.4)["files"]["reel.mp4"])
    medley = Medley(Render(CLEAR, None, None), captions=True)
    row = render(spans, tmp_path / "named", medley, overlap_s=0.4)
    named = read_pictures(row["files"]["reel.mp4"])
    pairs = zip(bare, named, strict=True)
    changed = np.array([np.abs(a[120:].astype(int) - b[120:]).max() > 60 for a, b in pairs])
    assert changed[10:45].all()
    assert not changed[51:60].any()
    assert changed[70:90].all()
    # White letters in a dark surrounding.
    difference = named[25][120:].astype(int) - bare[25][120:]
    assert difference.min() < -60
    assert difference.max() > 60
    with av.open(str(row["files"]["reel.mp4"])) as file:
        titles = [chapter["metadata"]["title"] for chapter in file.chapters()]
    assert titles == ["plain from 0:00:00", "fast from 0:00:01"]


def test_videos_that_cannot_be_read_are_all_named_at_once(kinds: dict, tmp_path: Path) -> None:
    cut_off = make_truncated(tmp_path / "cut.ts", kinds["late.ts"].path, 0.3)
    row = edit_list([(kinds["plain.mp4"], 0, 1), (kinds["late.ts"], 2, 3), (kinds["small.mkv"], 0, 1)])
    row["takes"][1].uri = str(cut_off)
    row["takes"][2].uri = str(tmp_path / "gone.mkv")
    (tmp_path / "out").mkdir()
    with pytest.raises(TakesFailed) as error:
        PLAIN(row, tmp_path / "out")
    assert error.value.reasons.keys() == {"late.ts", "small.mkv"}
    assert error.value.reasons["small.mkv"] == "small: it is no longer there"


def test_shots_are_graded_by_video(kinds: dict, tmp_path: Path) -> None:
    class Darker:
        def __init__(self) -> None:
            self.asked: list[int] = []

        def luts(self, shots: list[np.ndarray]) -> list[np.ndarray]:
            self.asked.append(len(shots))
            steps = np.linspace(0, 1, 9, dtype=np.float32)
            grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1)[..., ::-1]
            return [0.5 * grid] * len(shots)

    spans = [(kinds["plain.mp4"], 0, 1), (kinds["turned.mp4"], 0, 1), (kinds["plain.mp4"], 2, 3)]
    bare = read_pictures(render(spans, tmp_path / "bare")["files"]["reel.mp4"])
    grade = Darker()
    dark = read_pictures(
        render(spans, tmp_path / "dark", Medley(Render(CLEAR, grade, None)))["files"]["reel.mp4"]
    )
    assert sorted(grade.asked) == [1, 2]
    for before, after in zip(bare[::10], dark[::10], strict=True):
        assert after.mean() == pytest.approx(0.5 * before.mean(), rel=0.15)
