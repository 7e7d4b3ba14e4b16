"""What players and people look at beside a reel: every picture shows the moment that its text says."""

import re
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from stages import stills
from stages.stills import Stills, captions, stamp, tenths
from stages.timeline import Slot
from tests.media import make_video, read_counter, read_pictures
from tests.stages.test_render import render

SPANS, OVERLAPS = [(3, 40), (50, 90), (100, 149)], [0, 8, 0]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stills")
    facts = make_video(folder / "a.mp4", seconds=6, size=(320, 180), audio=None)
    return render(facts, folder / "out", SPANS, OVERLAPS)["files"]


def test_the_storyboard_shows_the_middle_of_every_clip(rendered):
    sheet = np.asarray(Image.open(rendered["storyboard.jpg"]))
    shown = counters_by_place(rendered["reel.mp4"])
    tiles = [sheet[16 : 16 + 180, 16 + 336 * n : 16 + 336 * n + 320] for n in range(3)]
    found = [read_counter(tile) for tile in tiles]
    assert found == [shown[14], shown[29 + 24], shown[69 + 24]]
    assert found == [17, 74, 124]
    assert sheet.shape == (180 + 44 + 32, 3 * 336 + 16, 3)
    text = sheet[16 + 180 + 4 : 16 + 180 + 44, 16:336]
    assert text.max() > 200


def counters_by_place(path):
    found = {}
    for number, picture in enumerate(read_pictures(path)):
        try:
            found[number] = read_counter(picture)
        except ValueError:  # in a transition
            continue
    return found


def test_every_preview_shows_the_middle_of_its_time(rendered):
    cues = rendered["thumbnails.vtt"].read_text()
    assert cues.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nthumbnails.jpg#xywh=0,0,160,90\n")
    found = re.findall(r"(\S+) --> (\S+)\n(\S+)#xywh=(\d+),(\d+),(\d+),(\d+)", cues)
    assert {cue[2] for cue in found} == {"thumbnails.jpg"}
    assert [cue[1] for cue in found[:-1]] == [cue[0] for cue in found[1:]]
    assert found[-1][1] == "00:00:04.720"
    sprite = np.asarray(Image.open(rendered["thumbnails.jpg"]))
    shown = counters_by_place(rendered["reel.mp4"])
    for number, cue in enumerate(found):
        x, y, width, height = map(int, cue[3:])
        assert x + width <= sprite.shape[1]
        assert y + height <= sprite.shape[0]
        middle = min(117, number * 25 + 12)
        if middle in shown:
            assert read_counter(sprite[y : y + height, x : x + width]) == shown[middle]


def test_a_long_reel_has_as_many_previews_as_one_sheet_holds():
    stills = Stills([Slot(0, 0.0, 600.0, 0, 15_000, 0, "cut")], Fraction(25))
    assert len(stills.previews) == 100
    assert len(Stills([Slot(0, 0.0, 0.04, 0, 1, 0, "cut")], Fraction(25)).previews) == 1


@pytest.mark.parametrize("size", [(320, 180), (90, 1600)])
def test_the_storyboard_of_thousands_of_clips_is_a_file_of_two_hundred(size, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(stills, "captions", lambda *given: said.append(given[0]) or captions(*given))
    slots = [Slot(n, 2.0 * n, 2.0 * n + 1, 25 * n, 25, 0, "cut") for n in range(3000)]
    seen = Stills(slots, Fraction(25))
    frame = av.VideoFrame(*size, "yuv420p")
    for number in range(seen.end):
        seen.see(number, frame)
    sheet = Image.open(seen.write(tmp_path)["storyboard.jpg"])
    assert max(sheet.size) < 65_500
    assert len(said) == 200
    assert (said[0], said[-1]) == (0, 2999)
    assert set(np.diff(said)) == {15, 16}


def test_an_upright_reel_has_upright_pictures(tmp_path):
    facts = make_video(tmp_path / "a.mp4", size=(180, 320), audio=None, seconds=1)
    files = render(facts, tmp_path / "out", [(2, 20)])["files"]
    assert Image.open(files["thumbnails.jpg"]).size == (90, 160)
    assert Image.open(files["storyboard.jpg"]).size == (180 + 32, 320 + 44 + 32)
    assert "#xywh=0,0,90,160" in files["thumbnails.vtt"].read_text()


def test_times_are_written_as_people_and_players_read_them():
    assert (tenths(0), tenths(59.96), tenths(125.04)) == ("0:00.0", "1:00.0", "2:05.0")
    assert stamp(3661.0417) == "01:01:01.042"
    effect = Slot(4, 83.5, 86.0, 100, 50, 10, "whip")
    assert captions(2, effect, Fraction(20)) == ("3   0:05.0  ·  whip 0.50 s", "1:23.5 to 1:26.0, 2.5 s")
    assert captions(0, Slot(0, 0.0, 1.0, 0, 25, 0, "cut"), Fraction(25))[0] == "1   0:00.0"
