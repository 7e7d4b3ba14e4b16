"""`reelmap effect`: what is written, when the effect is on show, and what is refused in words."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from jobs.cli import main
from stages.nn.gan import EFFECTS
from tests.media import (
    hear_beeps,
    make_audio_only,
    make_text,
    make_video,
    read_counter,
    read_pictures,
    read_samples,
)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["effect", *map(str, arguments)], catch_exceptions=False)


def touched(video: Path, out: Path) -> list[int]:
    """Frames of `out` that are not as in the video."""
    before, after = (np.stack(read_pictures(path)).astype(int) for path in (video, out))
    return np.flatnonzero(np.abs(after - before).mean((1, 2, 3)) > 9).tolist()


def test_the_effect_comes_in_every_two_seconds_and_the_sound_stays_in_step(tmp_path):
    facts = make_video(tmp_path / "a.mp4", seconds=4, size=(160, 90))
    out = tmp_path / "new" / "out.mp4"
    done = run(facts.path, "--effect", "twist", "--strength", "1", out, "--duration", "0.4")
    assert done.exit_code == 0, done.output
    assert "twist 2 times in 4.0 s (100 frames): 0:01.0, 0:03.0" in done.output
    assert done.output.splitlines()[-1] == str(out)
    changed = touched(facts.path, out)
    assert {20 <= n < 30 or 70 <= n < 80 for n in changed} == {True}
    assert {25, 75} <= set(changed)
    assert hear_beeps(read_samples(out), 48000) == pytest.approx(facts.beeps_s, abs=0.012)
    assert list((tmp_path / "new").iterdir()) == [out]


def test_at_given_times_and_nowhere_else(tmp_path):
    facts = make_video(tmp_path / "a.mp4", seconds=3, audio=None)
    out = tmp_path / "out.mp4"
    arguments = ["--strength", "1", "--at", "0:02", "--duration", "0.4"]
    done = run(facts.path, out, "--effect", "spin+zoom", *arguments)
    assert done.exit_code == 0, done.output
    changed = touched(facts.path, out)
    assert changed == [n for n in range(45, 55) if n in changed]
    assert {48, 49, 50} <= set(changed)


def test_over_the_cuts_no_frame_is_lost(tmp_path):
    facts = make_video(tmp_path / "a.mp4", seconds=4, shots=2)
    out = tmp_path / "out.mp4"
    done = run(facts.path, out, "--effect", "blur", "--strength", "0.3", "--cuts")
    assert done.exit_code == 0, done.output
    assert "1 time in 4.0 s (100 frames): 0:02.0" in done.output
    pictures = read_pictures(out)
    assert len(pictures) == 100
    assert [read_counter(pictures[n]) for n in (*range(40), *range(60, 100))] == [*range(40), *range(60, 100)]


def test_what_is_there_is_replaced_only_if_asked(tmp_path):
    facts = make_video(tmp_path / "a.mp4", seconds=1, audio=None)
    out = tmp_path / "out.mp4"
    out.write_text("mine")
    refused = run(facts.path, out, "--effect", "zoom")
    assert (refused.exit_code, out.read_text()) == (2, "mine")
    assert "--overwrite" in refused.output
    assert run(facts.path, out, "--effect", "zoom", "--overwrite").exit_code == 0
    assert len(read_pictures(out)) == 25


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--effect", "wave"], f"no effect is called wave: there are {', '.join(EFFECTS)}"),
        (["--effect", "zoom", "--at", "1", "--cuts"], "exclude one another"),
        (["--effect", "zoom", "--at", "soon"], "soon is no time"),
        (["--effect", "zoom", "--at", "1.5,75"], "--at 75: the video is 2.0 s long"),
        (["--effect", "zoom", "--cuts"], "no cut in it: use --every or --at"),
        (["--effect", "zoom", "--every", "0"], "--every 0"),
        (["--effect", "zoom", "--duration", "0.01"], "--duration 0.01"),
        (["--effect", "zoom", "--bundle", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_and_leaves_nothing(tmp_path, arguments, words):
    facts = make_video(tmp_path / "a.mp4", seconds=2, audio=None)
    done = run(facts.path, tmp_path / "out.mp4", *arguments)
    assert done.exit_code == 2
    assert words in done.output
    assert len(done.output.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_files_that_are_no_videos_or_cannot_be_written_are_refused(tmp_path):
    good = make_video(tmp_path / "a.mp4", seconds=1, audio=None).path
    folder = tmp_path / "file"
    folder.write_text("no folder")
    for video, out, words in (
        (tmp_path / "none.mp4", tmp_path / "o.mp4", "there is no"),
        (make_text(tmp_path / "t.mp4"), tmp_path / "o.mp4", "cannot be opened as video"),
        (make_audio_only(tmp_path / "s.mp4"), tmp_path / "o.mp4", "audio only"),
        (good, tmp_path / "o.gif", "an .mp4"),
        (good, folder / "o.mp4", "cannot"),
    ):
        done = run(video, out, "--effect", "zoom")
        assert done.exit_code == 2, words
        assert words in done.output
        assert not out.exists()


def test_every_effect_is_named_in_the_help():
    text = run("--help").output
    assert all(name in text for name in EFFECTS)
