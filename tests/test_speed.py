"""Guards against becoming much slower: CPU time beside that of a reference in the same process, wide margins.

What is exact is measured by benchmarks/; these fail when something costs several times what it should.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import av
import pytest

from stages.container import LimitSettings
from stages.decode import DecodeSettings, decode
from stages.probe import probe
from tests.media import make_video

ROUNDS = 3


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    return make_video(path, seconds=8, shots=4, size=(1280, 720)).path


def ratio(ours: Callable[[], None], reference: Callable[[], None]) -> float:
    """Median over rounds of our CPU seconds by those of the reference."""

    def cpu_s(run: Callable[[], None]) -> float:
        began = time.process_time()
        run()
        return time.process_time() - began

    ours()  # what is loaded on first use
    return median(cpu_s(ours) / cpu_s(reference) for _ in range(ROUNDS))


def bare_decoding(path: Path) -> None:
    with av.open(str(path)) as file:
        file.streams.video[0].thread_type = "NONE"
        for _ in file.decode(video=0):
            pass


def test_the_decode_stage_costs_little_beside_the_decoder(film: Path) -> None:
    """1.6 where this was written: shots, motion, sound and thumbnails of every frame included."""
    limits, settings = LimitSettings(), DecodeSettings()

    def stage() -> None:
        for shard in probe({"uri": str(film)}, limits, settings.shard_s):
            decode(shard, settings, limits)

    assert ratio(stage, lambda: bare_decoding(film)) < 5


def test_the_help_page_loads_nothing_that_takes_long() -> None:
    code = "import sys, jobs.cli; print(*({'ray', 'torch', 'av', 'pyarrow', 'numpy'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout.split() == []
