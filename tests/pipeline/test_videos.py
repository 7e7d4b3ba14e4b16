"""A video is found by its id, its URI, or as much of the end of it as only one has."""

from pathlib import Path

import pytest

from pipeline import schema
from pipeline.tables import write_part
from pipeline.videos import VideoError, Videos
from tests.pipeline.made_up import part_of, result, tables


@pytest.fixture
def videos(tmp_path: Path) -> Videos:
    made = tables(
        result("old", uri="s3://library/a/race.mp4"),
        result("new", uri="s3://library/a/race.mp4", minutes=5),
        result("other", uri="s3://library/b/race.mp4"),
        result("broken", status=schema.FAILED),
    )
    write_part(str(tmp_path), part_of(made), made)
    return Videos(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "video_id"),
    [
        ("old", "old"),
        ("s3://library/a/race.mp4", "new"),  # the file was changed: its newest result counts
        ("a/race.mp4", "new"),
        ("./b/race.mp4", "other"),
    ],
)
def test_names_that_only_one_video_has_find_it(videos: Videos, name: str, video_id: str) -> None:
    assert videos.find(name)["video_id"] == video_id


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("race.mp4", "may be any of 2 videos"),
        ("ace.mp4", "no video is called ace.mp4"),
        ("", r"no video is called \(nothing\)"),
        ("broken.mp4", "it was failed"),
    ],
)
def test_what_finds_no_video_says_why(videos: Videos, name: str, words: str) -> None:
    with pytest.raises(VideoError, match=words):
        videos.find(name)


def test_an_empty_output_says_so(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="there are no results"):
        Videos(str(tmp_path))
