"""Reels over videos of all kinds: exactly the frames of the edits, one size, one rate, one level."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from stages.container import open_source
from stages.medley import Medley, Take, TakesFailed, form_of
from stages.probe import describe
from stages.render import Render, RenderSettings
from tests.media import (
    MediaFacts,
    hear_beeps,
    make_truncated,
    make_video,
    read_counter,
    read_flash,
    read_pictures,
    read_samples,
)

CLEAR = RenderSettings(crf=14)
PLAIN = Medley(Render(CLEAR, None, None))


def take(facts: MediaFacts, name: str | None = None) -> Take:
    with open_source(facts.uri) as source:
        probe = describe(source)
    return Take(facts.path.name, facts.uri, "", name or facts.path.stem, probe)


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


def test_the_form_is_that_of_most_seconds_at_its_largest_size(kinds: dict) -> None:
    spans = [(kinds["turned.mp4"], 0, 1), (kinds["small.mkv"], 0, 2), (kinds["plain.mp4"], 0, 0.5)]
    row = edit_list(spans)
    takes = {one.video_id: one for one in row["takes"]}
    assert form_of(row["edits"], takes) == ((320, 180), Fraction(30000, 1001))


def test_another_shape_stands_on_a_darker_copy_of_itself(kinds: dict, tmp_path: Path) -> None:
    row = render([(kinds["plain.mp4"], 0, 2), (kinds["turned.mp4"], 1, 2)], tmp_path / "out")
    picture = read_pictures(row["files"]["reel.mp4"])[60]
    inside, side = middle(picture, 102, 180)[60:].mean(), picture[60:, 10:90].mean()
    assert 0.25 * inside < side < 0.8 * inside
    read_counter(middle(picture, 102, 180))


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
