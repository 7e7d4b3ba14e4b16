"""A run that is stopped half-way, kindly or not: the same command finishes it, and nothing stands twice."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from pipeline import tables
from tests.media import make_video

VIDEOS = 6
ENGINES = (pytest.param("ray", marks=pytest.mark.slow), "processes")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    folder.mkdir()
    for number in range(VIDEOS):
        make_video(folder / f"{number}.mp4", seconds=8, shots=3, size=(320, 180))
    return folder


def start(library: Path, output: Path, bundle: str, engine: str) -> subprocess.Popen:
    options = ["--target", "4s", "--bundle", bundle, "--set", f"run.engine={engine}"]
    command = [sys.executable, "-m", "jobs.cli", "highlights", str(library), str(output), *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for_first_video(run: subprocess.Popen, output: Path) -> None:
    deadline = time.monotonic() + 180
    while not list((output / "videos").glob("*.parquet")):
        assert run.poll() is None, run.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "how",
    [*(pytest.param(how, marks=pytest.mark.slow) for how in (signal.SIGINT, signal.SIGTERM)), signal.SIGKILL],
)
def test_same_command_finishes_what_was_stopped(
    how: signal.Signals, engine: str, library: Path, tmp_path: Path, bundle: str
) -> None:
    output = tmp_path / "output"
    run = start(library, output, bundle, engine)
    wait_for_first_video(run, output)
    family = psutil.Process(run.pid).children(recursive=True)
    os.kill(run.pid, how)
    said = run.communicate(timeout=120)[1]
    if how != signal.SIGKILL:
        assert run.returncode == 130
        assert "the same command goes on" in said
        assert "Traceback" not in said
        (record,) = (output / "runs").glob("*.json")
        assert json.loads(record.read_text())["state"] == "interrupted"
        assert not psutil.wait_procs(family, timeout=60)[1]

    part_way = tables.read(str(output), "videos")["video_id"].to_pylist()
    assert 1 <= len(part_way) < VIDEOS, "stopped too late to show anything"
    finish(library, output, bundle, engine)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", range(4))
def test_killed_again_and_again_at_any_moment_it_still_ends_with_everything_once(
    seed: int, engine: str, library: Path, tmp_path: Path, bundle: str
) -> None:
    dice, output = random.Random(seed), tmp_path / "output"
    for _ in range(4):
        run = start(library, output, bundle, engine)
        family = []
        with suppress(subprocess.TimeoutExpired):
            run.wait(dice.uniform(0.5, 30 if engine == "ray" else 15))
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(run.pid).children(recursive=True)
        run.kill()
        run.communicate(timeout=60)
        assert not psutil.wait_procs(family, timeout=60)[1], "workers outlived their driver"
    finish(library, output, bundle, engine)


def finish(library: Path, output: Path, bundle: str, engine: str) -> None:
    """Lets the command end by itself, and looks whether everything is there once and nothing else."""
    again = start(library, output, bundle, engine)
    said = again.communicate(timeout=300)[1]
    assert again.returncode == 0, said
    videos = tables.read(str(output), "videos").to_pylist()
    assert len(videos) == VIDEOS
    plain = [
        row
        for part in (output / "videos").glob("*.parquet")
        for row in tables.pq.read_table(part).to_pylist()
    ]
    assert len({row["video_id"] for row in plain}) == len(plain) == VIDEOS
    for name in ("clips", "reels", "proxies"):
        twins = {part.name for part in (output / name).glob("*.parquet")}
        assert twins <= {part.name for part in (output / "videos").glob("*.parquet")}
    assert not [path for path in output.rglob("*") if path.name.startswith(".") and path.is_file()]
    links = re.findall(r'href="([^"#:]+)"', (output / "report" / "index.html").read_text())
    assert {f"{row['video_id']}.html" for row in videos} <= set(links)
    assert not [link for link in links if not (output / "report" / link).exists()]
