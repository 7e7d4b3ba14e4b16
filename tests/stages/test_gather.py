"""A video leaves when its last shard has come, once, whatever the order."""

import itertools

import numpy as np
import pytest

from stages.failure import Dropped, Failed
from stages.gather import Gather, merge
from stages.speech import step_at


def shard(
    number: int, shards: int, video_id: str = "v", frames: int = 100, header_s: float | None = None
) -> dict:
    start = 10.0 * number
    return {
        "video_id": video_id,
        "failure": None,
        "probe": {"duration_s": header_s or 10.0 * shards, "duration_exact": True},
        "shard": number,
        "shards": shards,
        "start_s": start,
        "end_s": start + 10 if number + 1 < shards else np.inf,
        "times_s": start + np.arange(0, 10, 0.5),
        "features": np.full((20, 3), number, np.float16),
        "codes": [b"code"] * 20,
        "thumbnails": [b"jpeg"] * 20,
        "motion": np.zeros(20, np.float32),
        "motion_std": np.zeros(20, np.float32),
        "luma": np.zeros(20, np.float32),
        "cuts_s": np.array([start + 1.0]),
        "flashes_s": np.array([start + 2.0]),
        "loudness": np.full(19 if number == 0 else 20, -20.0 - number, np.float32),
        "speech": np.full(step_at(start + 10) - step_at(start) - (number > 0), 0.1 * number, np.float32),
        "end_of_video_s": start + 10,
        "frames_decoded": frames,
        "log": {"shard": number, "start_s": start, "end_s": start + 10},
    }


def test_any_order_gives_the_same_video() -> None:
    for order in itertools.permutations(range(3)):
        gather = Gather(0.95)
        results = [gather(shard(number, 3)) for number in order]
        assert results[:2] == [None, None]
        video = results[2]
        assert video["times_s"] == pytest.approx(np.arange(0, 30, 0.5))
        assert video["features"][:, 0] == pytest.approx(np.repeat([0, 1, 2], 20))
        assert video["cuts_s"] == pytest.approx([1, 11, 21])
        assert video["duration_s"] == 30
        assert len(video["codes"]) == len(video["thumbnails"]) == 60


def test_loudness_stays_on_its_half_seconds_where_a_shard_lacks_one() -> None:
    video = merge([shard(number, 3) for number in range(3)], 0.95)
    assert len(video["loudness"]) == 60
    assert video["loudness"][[0, 19, 20, 40]] == pytest.approx([-20, -20, -21, -22])


def test_sound_that_begins_late_stays_where_it_is() -> None:
    silent = shard(0, 3) | {"loudness": np.empty(0, np.float32)}
    loudness = merge([silent, shard(1, 3), shard(2, 3)], 0.95)["loudness"]
    assert len(loudness) == 60
    assert loudness[[0, 19, 20]] == pytest.approx([-70, -70, -21])
    assert len(merge([shard(n, 2) | {"loudness": np.empty(0)} for n in range(2)], 0.95)["loudness"]) == 0


def test_where_the_sound_has_ended_there_is_neither_loudness_nor_speech() -> None:
    early = shard(0, 2) | {"loudness": np.full(10, -20.0), "speech": np.ones(step_at(5.0), np.float32)}
    none = {"loudness": np.empty(0, np.float32), "speech": np.empty(0, np.float32)}
    video = merge([early, shard(1, 2) | none], 0.95)
    assert video["loudness"] == pytest.approx([-20.0] * 10 + [-70.0] * 30)
    assert video["speech"] == pytest.approx([1.0] * step_at(5.0) + [0.0] * (step_at(10.0) - step_at(5.0)))


def test_speech_stays_on_its_steps_where_a_shard_lacks_one() -> None:
    speech = merge([shard(number, 3) for number in range(3)], 0.95)["speech"]
    assert len(speech) == step_at(30.0) - 1  # the last shard ends where its sound does
    assert speech[[step_at(10.0) - 1, step_at(10.0), step_at(20.0) - 1, step_at(20.0)]] == pytest.approx(
        [0, 0.1, 0.1, 0.2]
    )
    silent = shard(0, 3) | {"speech": np.empty(0, np.float32)}
    assert len(merge([silent, shard(1, 3), shard(2, 3)], 0.95)["speech"]) == len(speech)
    assert len(merge([shard(n, 2) | {"speech": np.empty(0)} for n in range(2)], 0.95)["speech"]) == 0


def test_shard_that_comes_twice_counts_once() -> None:
    gather = Gather(0.95)
    assert gather(shard(0, 2)) is None
    assert gather(shard(0, 2)) is None
    assert len(gather(shard(1, 2))["times_s"]) == 40
    assert gather(shard(1, 2)) is None
    assert gather(shard(0, 2)) is None


def test_failed_shard_fails_its_video_once_and_no_other() -> None:
    gather = Gather(0.95)
    broken = shard(1, 3) | {"failure": {"reason": "damaged"}}
    assert gather(shard(0, 3)) is None
    assert gather(shard(0, 1, video_id="w"))["video_id"] == "w"
    assert gather(broken)["failure"]["reason"] == "damaged"
    assert gather(shard(2, 3)) is None
    assert gather(broken) is None


def test_nothing_is_kept_of_a_video_that_is_done() -> None:
    gather = Gather(0.95)
    for number in range(50):
        gather(shard(0, 2, video_id=str(number)))
        gather(shard(1, 2, video_id=str(number)))
    assert not len(gather._waiting)


def test_video_that_mostly_cannot_be_decoded_fails() -> None:
    with pytest.raises(Failed, match=r"20\.0 s of 60\.0 s"):
        merge([shard(0, 2, header_s=60.0), shard(1, 2, header_s=60.0)], 0.95)


def test_single_frame_is_dropped() -> None:
    with pytest.raises(Dropped, match="too short"):
        merge([shard(0, 1, frames=1)], 0.95)
