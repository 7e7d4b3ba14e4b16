"""The benchmark of search looks at as many clips as it was told to, and says so."""

import sys
from pathlib import Path

import pytest

from benchmarks import search


def test_a_small_one_says_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(search, "PER_VIDEO", 5)
    monkeypatch.setattr(sys, "argv", ["search", "--clips", "640", "--folder", str(tmp_path)])
    search.main()
    assert "640 clips of 256 numbers" in capsys.readouterr().out
    assert len(list((tmp_path / "clips").glob("*.parquet"))) == 2
