"""The choice over many videos: fair to all, none too often, no near-duplicates, in bounded memory."""

import itertools

import numpy as np
import pytest

from stages.best import LEAST_HELD, Pool, ReelSettings, distance, standing, window
from stages.nn.voice import STEP_S
from stages.pauses import edges_of

WIDTH = 16
FREE = ReelSettings(apart=0)


def clips_of(scores: list[float], seconds: float = 3.0) -> list[dict]:
    return [
        {"clip": n, "start_s": n * seconds, "end_s": (n + 1) * seconds, "score": score}
        for n, score in enumerate(scores)
    ]


def unlike(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def chosen(pool: Pool) -> list[tuple[str, int]]:
    return [(one.video_id, one.clip["clip"]) for one in pool.chosen()]


def test_a_video_with_high_scores_does_not_take_all() -> None:
    settings = ReelSettings(apart=0, per_video=10)
    pool, raw = Pool(settings, 60, 1.2), Pool(settings.model_copy(update={"balance": 0.0}), 60, 1.2)
    for one in (pool, raw):
        one.add("bright", clips_of([0.80, 0.82, 0.84, 0.86, 0.88, 0.9]), unlike(6, 1))
        one.add("dull", clips_of([0.30, 0.32, 0.34, 0.36, 0.38, 0.4]), unlike(6, 2))
    assert [video for video, _ in chosen(raw)] == ["bright"] * 6 + ["dull"] * 6
    found = chosen(pool)
    assert found[0] == ("bright", 5)
    assert ("dull", 5) in found[:4]


def test_of_one_video_no_more_than_its_share() -> None:
    pool = Pool(ReelSettings(apart=0, per_video=2), 60, 1.2)
    for number in range(5):
        pool.add(f"v{number}", clips_of([0.5, 0.6, 0.7, 0.8]), unlike(4, number))
    found = chosen(pool)
    assert len(found) == 10
    assert {clip for _, clip in found} == {2, 3}


def test_of_near_duplicates_across_videos_the_best_one_stays() -> None:
    same = unlike(1)
    pool = Pool(ReelSettings(apart=0.1), 60, 1.2)
    pool.add("a", clips_of([0.5, 0.7]), np.concatenate([unlike(1, 7), same]))
    pool.add("b", clips_of([0.5, 0.9]), np.concatenate([unlike(1, 8), same + 0.01]))
    found = chosen(pool)
    assert ("b", 1) in found
    assert ("a", 1) not in found
    vectors = [one.embedding for one in pool.chosen()]
    assert min(distance(a, b) for a, b in itertools.combinations(vectors, 2)) >= 0.1


def test_many_takes_of_one_scene_leave_room_for_the_others() -> None:
    scene, others = unlike(1), unlike(3, 5)
    pool = Pool(ReelSettings(apart=0.1, per_video=3), 60, 1.2)
    vectors = np.concatenate([scene, scene + 0.01, others[:1], scene - 0.01, others[1:], scene + 0.02])
    pool.add("a", clips_of([0.9, 0.89, 0.2, 0.88, 0.1, 0.15, 0.87]), vectors)
    assert chosen(pool) == [("a", 0), ("a", 2), ("a", 5)]


def test_dark_clips_are_never_chosen() -> None:
    pool = Pool(FREE, 60, 1.2)
    pool.add("night", clips_of([0.0, 0.0]), unlike(2))
    pool.add("day", clips_of([0.0, 0.2]), unlike(2, 1))
    assert chosen(pool) == [("day", 1)]


def test_what_is_held_does_not_grow_with_the_videos_and_the_order_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    videos = [(f"v{n}", clips_of(list(rng.uniform(0.1, 1, 20))), unlike(20, n)) for n in range(400)]
    pools = [Pool(FREE, 30, 1.2) for _ in range(2)]
    for video in videos:
        pools[0].add(*video)
    for video in reversed(videos):
        pools[1].add(*video)
    assert len(pools[0]._held) == LEAST_HELD
    assert chosen(pools[0]) == chosen(pools[1])
    assert pools[0].clips == 8000


def test_vectors_of_different_networks_are_no_duplicates() -> None:
    assert distance(np.ones(4, np.float32) / 2, np.ones(9, np.float32) / 3) > 1


def test_standing_is_the_share_of_the_video_that_is_worse() -> None:
    found = standing(np.array([0.2, 0.9, 0.2, 0.5]), np.array([1.0, 2.0, 3.0, 4.0]))
    assert found == pytest.approx([0.2, 0.9, 0.2, 0.6])
    assert standing(np.array([0.7]), np.array([5.0])) == pytest.approx([0.5])


def test_a_long_clip_is_shown_around_its_best_moment_and_stays_inside() -> None:
    assert window(10, 14, 12, 6) == (10, 14)
    assert window(10, 20, 15, 4) == (13, 17)
    assert window(10, 20, 10.5, 4) == (10, 14)
    assert window(10, 20, 19.9, 4) == (16, 20)
    assert window(10, 20, None, 4) == (13, 17)


def test_a_window_of_speech_is_from_a_pause_to_a_pause_around_the_best_moment() -> None:
    speech = np.full(round(30 / STEP_S), 0.95, np.float32)
    for pause_s in (2.0, 6.4, 11.2, 20.0):
        speech[round(pause_s / STEP_S) : round((pause_s + 0.8) / STEP_S)] = 0.01
    edges = edges_of(speech, np.empty(0), 0.12)
    start_s, end_s = window(0, 30, 9.0, 4.0, 10.0, edges)
    assert 6.4 < start_s < 7.2
    assert 11.2 < end_s < 12.0
    # No longer than a sentence may be: the one from 12 to 20 s is cut, and near what was to be shown.
    start_s, end_s = window(0, 30, 15.0, 4.0, 5.0, edges)
    assert start_s <= 15 <= end_s
    assert 2.0 <= end_s - start_s <= 5.0


def test_a_window_without_speech_moves_off_a_flash_only() -> None:
    still = edges_of(np.empty(0, np.float32), np.array([40.0]), 0.12)
    assert window(10, 20, 15, 4, 10, still) == window(10, 20, 15, 4)
    flash = edges_of(np.empty(0, np.float32), np.array([13.02]), 0.12)
    start_s, end_s = window(10, 20, 15, 4, 10, flash)
    assert not flash.flash_at(np.array([start_s, end_s])).any()
    assert (start_s, end_s) == pytest.approx((13, 17), abs=0.6)
