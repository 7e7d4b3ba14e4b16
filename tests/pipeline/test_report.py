import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline import schema, storage, tables
from pipeline.report import write_report
from pipeline.wording import clock, curve, hours, size, tenths, ticks
from tests.pipeline.made_up import part_of, result
from tests.pipeline.made_up import tables as made_up

HOSTILE = "s3://lib/<script>alert(1)<\\script> \" onload='x' & {{ 7*7 }}.mp4"


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and the text."""

    def __init__(self, source: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def of_class(self, name: str) -> list[dict[str, str | None]]:
        return [item for _, item in self.elements if name in (item.get("class") or "").split()]


def publish(output: str, *results: dict[str, list[dict]]) -> None:
    made = made_up(*results)
    tables.write_part(output, part_of(made), made)


def page(output: str, name: str) -> Page:
    return Page(storage.read_bytes(storage.join(output, "report", f"{name}.html")).decode())


@pytest.fixture
def output(tmp_path: Path) -> str:
    return str(tmp_path / "out")


def test_the_index_counts_and_links_every_video(output):
    publish(output, result("a"), result("b"), result("c", status=schema.FAILED))
    publish(output, result("d", status=schema.DROPPED))
    assert write_report(output) == f"{output}/report/index.html"
    index = page(output, "index")
    links = {link["href"] for link in index.all("a")}
    assert links == {"a.html", "b.html", "c.html", "d.html"}
    assert {Path(file).stem for file in storage.list_files(f"{output}/report")} == {*"abcd", "index"}
    assert len(index.of_class("failed")) >= 1
    assert "the file ends after 3 of 12 s" in index.text
    assert len(index.of_class("spark")) == 2


def test_a_page_shows_reel_clips_reasons_and_edit_list(output):
    publish(output, result("a"))
    write_report(output)
    shown, made = page(output, "a"), result("a")
    (video,) = shown.all("video")
    assert video["src"] == "../media/a/reel.mp4"
    assert video["poster"] == "../media/a/poster.jpg"
    assert len(shown.of_class("clipspan")) == len(shown.all("li")) == 6
    assert len(shown.of_class("edit")) == len(made["reels"][0]["edits"]) > 0
    for clip in made["clips"]:
        assert clip["why"] in shown.text
        assert f"{clip['score']:.2f}" in shown.text
    chosen = {str(clip["clip"]) for clip in made["clips"] if clip["chosen"]}
    assert {span["data-clip"] for span in shown.of_class("clipspan") if "data-at" in span} == chosen
    starts = [float(edit["data-at"]) for edit in shown.of_class("edit")]
    assert starts == [edit["reel_start_s"] for edit in made["reels"][0]["edits"]]


def test_what_lies_beside_a_reel_is_linked_the_useful_first(output):
    made = result("a")
    names = ["clip-001.mp4", "grade-1.cube", "grade.cube", "poster.jpg", "reel.otio", "storyboard.jpg"]
    made["reels"][0]["files"] = [f"media/a/{name}" for name in names]
    publish(output, made)
    write_report(output)
    shown = page(output, "a")
    linked = [link["href"].rsplit("/", 1)[-1] for link in shown.all("a") if "download" in link]
    assert linked == [
        *("reel.mp4", "reel.otio", "storyboard.jpg", "poster.jpg", "grade.cube"),
        *("clip-001.mp4", "grade-1.cube"),
    ]
    assert "../media/a/storyboard.jpg" in [image["src"] for image in shown.all("img")]
    assert "2 more files" in shown.text


def test_clips_stand_at_their_place_in_the_chart(output):
    publish(output, result("a"))
    write_report(output)
    for span, clip in zip(page(output, "a").of_class("clipspan"), result("a")["clips"], strict=True):
        left, width = map(float, re.findall(r"([\d.]+)%", span["style"]))
        assert left == pytest.approx(clip["start_s"] / 1.5, abs=0.01)
        assert width == pytest.approx((clip["end_s"] - clip["start_s"]) / 1.5, abs=0.01)


def test_hostile_names_stay_text(output):
    publish(output, result("a", uri=HOSTILE), result("b", uri=HOSTILE, status=schema.FAILED))
    write_report(output)
    for name in ("index", "a", "b"):
        shown = page(output, name)
        assert len(shown.all("script")) == 1
        assert "<script>alert(1)" in shown.text
        assert "{{ 7*7 }}" in shown.text
        assert not [item for _, item in shown.elements if any(key.startswith("on") for key in item)]


def test_only_our_script_may_run_and_nothing_is_loaded_from_elsewhere(output):
    publish(output, result("a"))
    write_report(output)
    for name in ("index", "a"):
        shown = page(output, name)
        (policy,) = [meta["content"] for meta in shown.all("meta") if "http-equiv" in meta]
        assert "default-src 'none'" in policy
        assert re.search(r"script-src 'sha256-[A-Za-z0-9+/=]+'", policy)
        for _, item in shown.elements:
            for key in ("src", "href", "poster"):
                assert not re.match(r"[a-z]+:(?!image/jpeg)|//", item.get(key) or "")


def test_a_reel_that_points_out_of_output_is_refused(output):
    made = result("a")
    made["reels"][0]["uri"] = "../../etc/passwd"
    publish(output, made)
    with pytest.raises(ValueError, match="not a safe path"):
        write_report(output)


def test_only_pages_of_the_given_videos_are_written(output):
    publish(output, result("a"), result("b"))
    write_report(output, {"a"})
    assert storage.list_files(f"{output}/report") == ["a.html", "index.html"]
    assert {link["href"] for link in page(output, "index").all("a")} == {"a.html", "b.html"}


def test_runs_are_summed_up_and_broken_records_left_out(output):
    publish(output, result("a"))
    record = {"started_at": "2026-05-01T12:00:00+00:00", "counts": {"ok": 1}, "video_hours_per_hour": 12.34}
    for name, data in (("1", json.dumps(record)), ("2", "{not json"), ("3", "[]"), ("4", "{}")):
        storage.write_bytes(f"{output}/runs/{name}.json", data.encode())
    write_report(output)
    index = page(output, "index")
    assert index.text.count("12.3") == 2
    assert "2026-05-01 12:00" in index.text


def test_an_empty_output_has_an_index(output):
    write_report(output)
    assert "Nothing has been processed yet" in page(output, "index").text


def test_a_large_library_has_plain_rows_beyond_the_newest(output, monkeypatch):
    monkeypatch.setattr("pipeline.report._CARDS", 3)
    monkeypatch.setattr("pipeline.report._PICTURES", 2)
    publish(output, *(result(f"v{number}", minutes=number) for number in range(8)))
    write_report(output)
    index = page(output, "index")
    assert [link["href"] for link in index.all("a")] == [f"v{number}.html" for number in range(7, -1, -1)]
    assert len(index.of_class("spark")) == len(index.of_class("video")) == 3
    video = page(output, "v1")
    pictures = [image for image in video.all("img") if image["src"].startswith("data:image/jpeg;base64,")]
    assert len(pictures) == 2
    assert {item["id"] for _, item in video.elements if "id" in item} >= {f"clip-{n}" for n in range(6)}


def test_a_silent_video_and_missing_facts_have_a_page(output):
    made = result("a")
    made["clips"] = [clip | {"loudness_lufs": None, "why": None} for clip in made["clips"]]
    made["reels"][0] |= {"loudness_lufs": None, "true_peak_dbtp": None, "files": None}
    made["videos"][0] |= {"audio_codec": None, "audio_rate": None, "audio_channels": None, "fps": None}
    publish(output, made)
    write_report(output)
    shown = page(output, "a")
    assert "no sound" in shown.text
    assert "None" not in shown.text


def test_a_chosen_clip_shows_what_in_its_picture_mattered_without_a_script(output):
    made = result("a")
    chosen = [clip for clip in made["clips"] if clip["chosen"]]
    for clip in chosen[:-1]:
        clip |= {"saliency": b"\xff\xd8\xff overlay"}
    publish(output, made, result("b"))
    write_report(output)
    shown = page(output, "a")
    overlays = shown.of_class("map")
    assert len(overlays) == len(chosen) - 1 > 0
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in overlays)
    boxes = [item for item in shown.all("input") if item["type"] == "checkbox"]
    assert len(boxes) == len(overlays) + 1  # one for all of them
    assert not page(output, "b").all("input")


def test_results_of_a_version_without_overlays_still_have_a_page(output):
    made = made_up(result("a"))
    made["clips"] = made["clips"].drop_columns(["rank", "thumbnail_s", "saliency"])
    tables.write_part(output, part_of(made), made)
    publish(output, result("b"))
    write_report(output)
    write_report(output, {"a"})
    assert len(page(output, "a").all("li")) == len(page(output, "b").all("li")) == 6
    assert tables.read(output, "clips", ["saliency"], {"a"})["saliency"].null_count == 6


def test_the_report_is_written_to_s3_as_pages(s3):
    publish(f"{s3.uri}/out", result("a"))
    write_report(f"{s3.uri}/out")
    head = s3.client().head_object(Bucket=s3.name, Key="out/report/index.html")
    assert head["ContentType"] == "text/html"


def test_a_long_curve_is_averaged_and_keeps_its_ends():
    times = [number / 2 for number in range(10_000)]
    path = curve(times, [0.25] * 10_000, 5000.0, 600)
    points = [tuple(map(float, point.split())) for point in path[1:].split("L")]
    assert len(points) == 600
    assert points[0][0] < 2 < 998 < points[-1][0]
    assert {y for _, y in points} == {75.0}
    assert curve([], [], 1.0, 10) is None
    assert curve([0.0], [float("nan")], 1.0, 10) == "M0.0 100.0"


@pytest.mark.parametrize("duration_s", [0.4, 9.0, 61.0, 3600.0, 200_000.0])
def test_the_axis_has_few_round_marks(duration_s):
    marks = ticks(duration_s)
    assert 1 <= len(marks) <= 9
    assert marks[0] == (0.0, "0:00")
    assert all(0 <= at <= 100 for at, _ in marks)


def test_times_and_sizes_read_well():
    assert [clock(s) for s in (0, 59.6, 3599.4, 3600, None)] == ["0:00", "1:00", "59:59", "1:00:00", "\u2013"]
    assert [tenths(s) for s in (0, 59.96, 61.25)] == ["0:00.0", "1:00.0", "1:01.2"]
    assert [size(b) for b in (0, 999, 12_345_678, None)] == ["0 bytes", "999 bytes", "12.3 MB", None]
    assert [hours(s) for s in (90, 7200)] == ["1.5 min", "2.0 h"]
