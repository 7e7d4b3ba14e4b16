"""Headers are read in processes of their own: what one of them does to its reader does nothing to the run."""

import sys
from pathlib import Path

import pytest

from jobs import headers
from jobs.headers import lengths
from stages.container import LimitSettings
from tests.media import make_video

# Python runs it first in the process that reads: the only way to have libav crash and hang for certain.
HOSTILE = """
import errno, os, signal, sys, time
if "jobs.headers" in sys.orig_argv:
    import stages.container
    real = stages.container.open_source
    def open_source(uri, limits):
        if uri.startswith("crash"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if uri.startswith("hang"):
            time.sleep(600)
        if uri.startswith("stale"):
            raise OSError(errno.ESTALE, "Stale file handle")
        return real(uri, limits)
    stages.container.open_source = open_source
"""


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(HOSTILE)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])


@pytest.mark.usefixtures("hostile")
def test_a_header_that_kills_hangs_or_breaks_its_reader_is_of_unknown_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headers, "PROCESSES", 1)
    monkeypatch.setattr(headers, "STALL_S", 3.0)
    good = str(make_video(tmp_path / "good.mp4", seconds=2, fps=12).path)
    uris = ["crash.mp4", good, "stale.mp4", "hang.mp4", good, str(tmp_path / "gone.mp4"), "crash.mp4"]
    length_s = pytest.approx(2.0, abs=0.2)
    assert lengths(uris, LimitSettings()) == [None, length_s, None, None, length_s, None, None]


@pytest.mark.usefixtures("hostile")
def test_what_is_not_read_in_time_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "TOGETHER_S", 0.5)
    assert lengths(["hang.mp4"] * 6, LimitSettings()) == [None] * 6


def test_lengths_are_in_the_order_of_the_videos(tmp_path: Path) -> None:
    uris = [
        str(make_video(tmp_path / f"{number}.mp4", seconds=number, fps=12).path) for number in (3, 1, 2, 5, 4)
    ]
    assert [round(length_s or 0) for length_s in lengths(uris, LimitSettings())] == [3, 1, 2, 5, 4]
