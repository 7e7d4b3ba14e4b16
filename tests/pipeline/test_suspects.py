"""Who is blamed for dead workers: the row they were at, twice among others and once alone."""

import pytest

from pipeline.suspects import ALONE_DEATHS, CROWD_DEATHS, Suspects

POISON, OTHER = ("decode", "poison", 3), ("decode", "other", 0)


@pytest.fixture
def suspects() -> Suspects:
    return Suspects()


def die(suspects: Suspects, times: int) -> None:
    """Workers that begin with the poison and are not heard of again."""
    for _ in range(times):
        assert suspects.begin(POISON) == "go"


def test_row_that_ends_is_no_suspect_however_often_it_runs(suspects: Suspects) -> None:
    for _ in range(10):
        assert suspects.begin(OTHER) == "go"
        suspects.end(OTHER)
    assert not suspects.aside


def test_suspect_is_set_aside_with_all_its_shards_and_its_neighbours_go_on(suspects: Suspects) -> None:
    die(suspects, CROWD_DEATHS)
    assert suspects.begin(POISON) == "aside"
    assert suspects.begin(("decode", "poison", 4)) == "aside"
    assert suspects.begin(OTHER) == "go"
    assert suspects.aside == {"poison"}


def test_who_dies_alone_is_guilty(suspects: Suspects) -> None:
    die(suspects, CROWD_DEATHS)
    suspects.begin(POISON)
    suspects.try_alone()
    assert not suspects.aside
    die(suspects, ALONE_DEATHS)
    assert suspects.begin(POISON) == "guilty"


def test_who_lives_alone_was_innocent(suspects: Suspects) -> None:
    die(suspects, CROWD_DEATHS)
    suspects.begin(POISON)
    suspects.try_alone()
    assert suspects.begin(POISON) == "go"
    suspects.end(POISON)
    assert suspects.begin(POISON) == "go"


def test_a_death_that_others_share_is_counted_for_each_row_by_itself(suspects: Suspects) -> None:
    for shard in range(5):
        assert suspects.begin(("decode", "long", shard)) == "go"  # five workers of a node that dies
    for shard in range(5):
        assert suspects.begin(("decode", "long", shard)) == "go"
    assert not suspects.aside
