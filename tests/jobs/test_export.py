"""`reelmap export`: the reel's timeline as editing programs read it, or plain words."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import opentimelineio as otio
import pytest
from click.testing import CliRunner, Result

from jobs import cli
from pipeline.tables import write_part
from stages.editorial import Media, timeline, write_timeline
from stages.frames import Frames
from stages.timeline import Slot
from tests.pipeline import made_up

NTSC = Fraction(30000, 1001)
MEDIA = Media("s3://library/day 1/The Film.mp4", Frames(NTSC, 0.0), 60.0, (1920, 1080), True)


def slots(fps: Fraction) -> list[Slot]:
    frames = [(10, 100, 0, "cut"), (300, 80, 11, "whip"), (900, 50, 0, "cut")]
    made, at = [], 0
    for clip, (start, count, overlap, effect) in enumerate(frames):
        at -= overlap
        span = float(start / fps), float((start + count) / fps)
        made.append(Slot(clip, *span, at, count, overlap, effect))
        at += count
    return made


def archive(folder: Path, fps: Fraction = NTSC, media: Media = MEDIA) -> Path:
    """An OUTPUT with a video that has a timeline, one whose reel has none, and one without a reel."""
    output = folder / "out"
    good, old, bare = (
        made_up.result(name, uri=f"s3://library/{name}.mp4") for name in ("good", "old", "bare")
    )
    good["reels"][0]["files"] = ["media/good/reel.otio"]
    old["reels"][0]["files"] = ["media/old/poster.jpg"]
    bare["reels"] = []
    write_part(str(output), "part", made_up.tables(good, old, bare))
    (output / "media/good").mkdir(parents=True)
    cubes = {0: "grade-0.cube", 1: "grade-1.cube", 2: "grade-2.cube"}
    clips = {n: {"shot": n, "score": 0.5, "why": f"ranked {n + 1}"} for n in range(3)}
    made = timeline([media] * 3, slots(fps), fps, (1280, 720), clips, cubes)
    write_timeline(made, output / "media/good/reel.otio")
    return output


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.main, ["export", *map(str, arguments)])


def test_otio_comes_out_as_it_is(tmp_path: Path) -> None:
    output = archive(tmp_path)
    done = run(output, "good.mp4", "--out", tmp_path / "a.otio")
    assert (done.exit_code, done.output.startswith("3 clips, 7.3 s: ")) == (0, True), done.output
    made = otio.adapters.read_from_file(str(tmp_path / "a.otio"))
    assert made.is_equivalent_to(otio.adapters.read_from_file(str(output / "media/good/reel.otio")))


def test_an_edl_reads_back_to_the_same_frames(tmp_path: Path) -> None:
    fps = Fraction(25)
    output = archive(tmp_path, fps, replace(MEDIA, frames=Frames(fps, 0.0)))
    assert run(output, "good", "--format", "edl", "--out", tmp_path / "a.txt").exit_code == 0
    lines = (tmp_path / "a.txt").read_text().splitlines()
    assert lines[:2] == ["TITLE: reel of The Film.mp4", "FCM: NON-DROP FRAME"]
    events = [line.split() for line in lines if line[:3].isdigit()]
    assert events == [
        ["001", "THEFILM", "V", "C", "00:00:00:10", "00:00:03:24", "00:00:00:00", "00:00:03:14"],
        ["002", "THEFILM", "V", "C", "00:00:03:24", "00:00:03:24", "00:00:03:14", "00:00:03:14"],
        ["002", "THEFILM", "V", "D", "011", *("00:00:12:00", "00:00:15:05", "00:00:03:14", "00:00:06:19")],
        ["003", "THEFILM", "V", "C", "00:00:36:00", "00:00:38:00", "00:00:06:19", "00:00:08:19"],
    ]
    assert "* FROM CLIP NAME:  The Film.mp4" in lines
    assert "* EFFECT NAME: WHIP" in lines
    assert "* GRADE: grade-1.cube" in lines
    back = otio.adapters.read_from_string("\n".join(lines), "cmx_3600", rate=25)
    spans = [clip.source_range for clip in back.video_tracks()[0].find_clips()]
    assert [(s.start_time.value, s.duration.value) for s in spans] == [(10, 89), (300, 80), (900, 50)]
    (dissolve,) = (item for item in back.video_tracks()[0] if isinstance(item, otio.schema.Transition))
    assert (dissolve.in_offset + dissolve.out_offset).value == 11


def test_an_edl_of_american_television_drops_frames_and_says_so(tmp_path: Path) -> None:
    output = archive(tmp_path)
    assert run(output, "good", "--out", tmp_path / "a.edl").exit_code == 0
    text = (tmp_path / "a.edl").read_text()
    assert "FCM: DROP FRAME" in text
    assert "00:00:30;00" in text


def test_fcpxml_keeps_transitions_and_counts_on_the_frame_grid(tmp_path: Path) -> None:
    output = archive(tmp_path)
    done = run(output, "good", "--out", tmp_path / "a.fcpxml", "--media", "/Volumes/Archive")
    assert done.exit_code == 0, done.output
    root = ElementTree.parse(tmp_path / "a.fcpxml").getroot()
    form, source = root.findall("resources/format")
    assert form.attrib == {"id": "r1", "frameDuration": "1001/30000s", "width": "1280", "height": "720"}
    assert source.attrib["width"] == "1920"
    (asset,) = root.findall("resources/asset")
    assert asset.find("media-rep").attrib["src"] == "file:///Volumes/Archive/The%20Film.mp4"
    spine = root.find("library/event/project/sequence/spine")
    assert [node.tag for node in spine] == ["asset-clip", "transition", "asset-clip", "asset-clip"]

    def frames(node: ElementTree.Element, name: str) -> Fraction:
        return Fraction(node.attrib[name].removesuffix("s")) * NTSC

    rows = [[frames(node, name) for name in ("offset", "start", "duration")] for node in spine[::2]]
    assert rows == [[0, 10, 94], [94, 305, 75]]
    assert [frames(spine[3], name) for name in ("offset", "start", "duration")] == [169, 900, 50]
    assert (frames(spine[1], "offset"), frames(spine[1], "duration")) == (89, 11)
    effect = root.find("resources/effect").attrib["id"]
    assert spine[1].find("filter-video").attrib["ref"] == effect
    assert spine[2].find("marker").attrib["value"] == "ranked 2"
    ids = [node.attrib["id"] for node in root.find("resources")]
    assert len(ids) == len(set(ids))
    sequence = root.find("library/event/project/sequence")
    assert frames(sequence, "duration") == 219


@pytest.mark.parametrize("suffix", ["edl", "fcpxml", "otio"])
def test_a_name_full_of_surprises_stays_a_name(tmp_path: Path, suffix: str) -> None:
    media = replace(MEDIA, uri="s3://library/a'\"<b>&\n002  X V C.mp4")
    output = archive(tmp_path, media=media)
    assert run(output, "good", "--out", tmp_path / f"a.{suffix}").exit_code == 0
    text = (tmp_path / f"a.{suffix}").read_text()
    if suffix == "edl":
        assert sum(line[:3].isdigit() for line in text.splitlines()) == 4
    if suffix == "fcpxml":
        assert len(ElementTree.fromstring(text.split("\n", 2)[2]).findall(".//asset-clip")) == 3


def test_what_cannot_be_exported_is_said_in_words(tmp_path: Path) -> None:
    output = archive(tmp_path, Fraction(15), replace(MEDIA, frames=Frames(Fraction(15), 0.0)))
    for arguments, words in (
        (("good", "--out", tmp_path / "a.edl"), "counts in timecode"),
        (("good", "--out", tmp_path / "a.xyz"), "give --format"),
        (("old", "--out", tmp_path / "a.otio"), "run `reelmap highlights` again"),
        (("bare", "--out", tmp_path / "a.otio"), "no reel"),
        (("other", "--out", tmp_path / "a.otio"), "no video is called other"),
    ):
        done = run(output, *arguments)
        assert (done.exit_code, words in done.output) == (2, True), done.output
    (output / "media/good/reel.otio").write_text("{")
    damaged = run(output, "good", "--out", tmp_path / "a.otio")
    assert (damaged.exit_code, "damaged" in damaged.output) == (2, True)


def test_a_source_whose_name_no_folder_can_hold_is_said_in_words(tmp_path: Path) -> None:
    output = archive(tmp_path, media=replace(MEDIA, uri="s3://library/a\\b.mp4"))
    arguments = ("good", "--out", tmp_path / "a.edl", "--media", tmp_path)
    done = run(output, *arguments)
    assert (done.exit_code, type(done.exception)) == (2, SystemExit)
    assert "cannot be a file of --media" in done.output
