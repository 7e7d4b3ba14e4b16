"""Mutated videos end as decoded, failed or dropped; nothing crashes, hangs or raises anything else."""

import random
from pathlib import Path

import pytest

from tests.fuzz_media import fuzz, mutate


@pytest.mark.parametrize("seconds", [12.0, pytest.param(120.0, marks=pytest.mark.slow)])
def test_mutated_videos_end_in_words(seconds: float, tmp_path: Path) -> None:
    found = fuzz(tmp_path, seconds, seed=round(seconds))
    assert not found.findings
    # Mutations that break every file, or none, would show nothing.
    assert found.outcomes["ok"]
    assert found.outcomes["failed"]


def test_same_seed_makes_the_same_mutations() -> None:
    data = bytes(range(256)) * 8
    made = [mutate(data, random.Random(3)) for _ in range(2)]
    assert made[0] == made[1] != data
