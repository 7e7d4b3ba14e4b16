"""The edit list: as long as asked, made of the best clips, in order, and never out of its shot."""

import itertools

import numpy as np
import pytest
from pydantic import ValidationError

from stages.cut import Cut, CutSettings, reel_seconds, target_seconds
from stages.knapsack import BLOCK, choose, discounted, likenesses
from stages.pauses import edges_of
from stages.reasons import explain, strengths
from stages.spans import lit, segment, trim
from tests.stages.test_pauses import spoken

# Sentences of some seconds, and pauses within them and between them.
TALK = [(at + a, at + b) for at in np.arange(0.4, 120, 4.3) for a, b in ((0.0, 1.5), (1.8, 3.5))]


def scored(duration_s: float, cuts_s: list[float], rng: np.random.Generator, luma: float = 0.5) -> dict:
    times = np.arange(0, duration_s, 0.5)
    count = len(times)
    return {
        "times_s": times,
        "features": rng.normal(size=(count, 8)).astype(np.float16),
        "importance": rng.uniform(size=count).astype(np.float32),
        "novelty": rng.uniform(size=count).astype(np.float32),
        "motion": rng.uniform(size=count).astype(np.float32),
        "luma": np.full(count, luma, np.float32),
        "loudness": np.empty(0, np.float32),
        "cuts_s": np.array(sorted(cuts_s)),
        "thumbnails": [b"jpeg"] * count,
        "duration_s": duration_s,
        "probe": {"fps": 25.0},
        "shard_log": [{"start_s": 0.0}],
    }


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("60s", 60), ("1m30s", 90), ("2h", 7200), ("1h2m3s", 3723), ("15%", 30), ("0.5s", 0.5)],
)
def test_lengths_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert target_seconds(text, 200.0) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "0s", "0%", "150%", "ten", "-5s", "5x", "%"])
def test_what_is_no_length_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="is not a length"):
        CutSettings(target=text)


def test_knapsack_finds_the_best_of_all_choices() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        score, seconds = rng.uniform(size=9), rng.integers(1, 10, 9).astype(float)
        chosen = choose(score, seconds, 20.0)
        assert seconds[chosen].sum() <= 20
        subsets = itertools.chain.from_iterable(itertools.combinations(range(9), n) for n in range(10))
        fitting = (list(s) for s in subsets if seconds[list(s)].sum() <= 20)
        best = max((score[s] * seconds[s]).sum() for s in fitting)
        assert (score * seconds)[chosen].sum() == pytest.approx(best)


def test_clips_cover_the_video_without_gaps_and_stay_in_their_limits() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        end = rng.uniform(5, 300)
        cuts = np.sort(rng.uniform(0, end, rng.integers(0, 60)))
        clips = segment(cuts, 0.0, end, 1.2, 6.0)
        starts, ends = np.array([c[1] for c in clips]), np.array([c[2] for c in clips])
        assert (starts[0], ends[-1]) == (0.0, end)
        assert starts[1:] == pytest.approx(ends[:-1])
        lengths = ends - starts
        assert lengths.min() >= 1.2 - 1e-9
        # A shot between once and twice the least length cannot be split.
        assert lengths.max() <= 6.0 + 1.2


def test_shots_begin_at_cuts() -> None:
    clips = segment(np.array([2.0, 2.3, 7.0]), 0.0, 9.5, 1.0, 10.0)
    assert [(clip[1], clip[2]) for clip in clips] == [(0.0, 2.0), (2.0, 7.0), (7.0, 9.5)]


@pytest.mark.parametrize("transition_s", [0.0, 0.5, 1.5])
@pytest.mark.parametrize("target", ["20s", "90s", "15%", "1%", "85%", "5s"])
def test_reel_is_as_long_as_asked(target: str, transition_s: float) -> None:
    rng = np.random.default_rng(3)
    for _ in range(60):
        duration = rng.choice([rng.uniform(0.1, 5), rng.uniform(5, 120), rng.uniform(100, 400)])
        row = scored(duration, list(rng.uniform(0, duration, int(duration / rng.uniform(0.5, 20)))), rng)
        # Where all of a video is asked for, what looks alike would be missing.
        settings = CutSettings(target=target, apart=0.0)
        done = Cut(settings, ("whip", "spin") if transition_s else (), transition_s)(row)
        assert reel_seconds(done["edits"]) == pytest.approx(done["target_s"], abs=0.1)
        assert done["target_s"] <= duration
        for edit, after in itertools.pairwise(done["edits"]):
            length = edit["source_end_s"] - edit["source_start_s"]
            assert edit["transition_s"] + after["transition_s"] <= length


def talking(duration_s: float, cuts_s: list[float], rng: np.random.Generator) -> dict:
    return scored(duration_s, cuts_s, rng) | {"speech": spoken(*TALK, seconds=duration_s)}


def in_words(row: dict, edits: list[dict]) -> int:
    """How many ends of clips fall into a word; where the next clip goes on, there is no cut."""
    edges = edges_of(row["speech"], np.empty(0), 0.0)
    ends = [edit["source_end_s"] - after["sound_lead_s"] for edit, after in itertools.pairwise(edits)]
    starts = [edit["source_start_s"] - edit["sound_lead_s"] for edit in edits[1:]]
    open_ends = [pair for pair in zip(ends, starts, strict=True) if abs(pair[0] - pair[1]) > 1e-6]
    leaving = np.array([end for end, _ in open_ends] + [edits[-1]["source_end_s"]])
    entering = np.array([start for _, start in open_ends] + [edits[0]["source_start_s"]])
    return int((edges.leaving(leaving) > 0.6).sum() + (edges.entering(entering) > 0.6).sum())


@pytest.mark.parametrize("transition_s", [0.0, 0.5])
@pytest.mark.parametrize("target", ["20s", "45s"])
def test_no_cut_falls_into_a_word(target: str, transition_s: float) -> None:
    for seed in range(4):
        row = talking(120.0, [], np.random.default_rng(seed))
        transitions = ("whip",) if transition_s else ()
        done = Cut(CutSettings(target=target), transitions, transition_s)(row)
        assert in_words(row, done["edits"]) == 0
        deaf = Cut(CutSettings(target=target, speech="off"), transitions, transition_s)(row)
        assert in_words(row, deaf["edits"]) > 0


def test_cuts_in_the_middle_of_a_sentence_are_moved_off_the_words() -> None:
    """The shots of a film are cut anywhere in what is said."""
    words, deaf_words = 0, 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        row = talking(120.0, list(rng.uniform(0, 120, 14)), rng)
        done = Cut(CutSettings(target="20s"), (), 0.0)(row)
        assert reel_seconds(done["edits"]) == pytest.approx(20.0, abs=0.02)
        words += in_words(row, done["edits"])
        deaf_words += in_words(row, Cut(CutSettings(target="20s", speech="off"), (), 0.0)(row)["edits"])
    assert words < 0.15 * deaf_words


def test_in_a_film_full_of_talk_three_of_four_cuts_are_off_the_words() -> None:
    """Short shots, short pauses: an end can move to a pause only if other clips make up for it."""
    words = ends = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        lengths, pauses = rng.uniform(0.6, 4.5, 200), rng.uniform(0.2, 0.7, 200)
        starts = np.cumsum(lengths + pauses) - lengths
        row = scored(400.0, list(np.cumsum(rng.uniform(3, 7, 80))), rng)
        row["speech"] = spoken(*zip(starts, starts + lengths, strict=True), seconds=400.0)
        edits = Cut(CutSettings(target="60s"), (), 0.0)(row)["edits"]
        assert reel_seconds(edits) == pytest.approx(60.0, abs=0.02)
        words += in_words(row, edits)
        ends += 2 * len(edits)
    assert words < 0.25 * ends


def test_sentences_are_kept_whole() -> None:
    sentences = [(at, at + 4.5) for at in np.arange(1.0, 95, 6)]
    row = scored(100.0, [], np.random.default_rng(3)) | {"speech": spoken(*sentences, seconds=100.0)}
    edits = Cut(CutSettings(target="30s"), (), 0.0)(row)["edits"]
    for edit in edits:
        inside = [s for s in sentences if s[0] < edit["source_end_s"] and s[1] > edit["source_start_s"]]
        for start_s, end_s in inside:
            assert edit["source_start_s"] < start_s
            assert end_s < edit["source_end_s"]


@pytest.mark.parametrize("order", ["chronological", "best_first"])
@pytest.mark.parametrize("sound_lead_s", [0.0, 0.4])
@pytest.mark.parametrize("transition_s", [0.0, 0.5])
def test_whatever_moves_the_promises_are_kept(order: str, sound_lead_s: float, transition_s: float) -> None:
    """The length that was asked for, least lengths, no second twice, nothing from another shot."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        cuts = sorted(rng.uniform(0, 120, int(rng.integers(0, 30))))
        row = talking(120.0, cuts, rng) | {"flashes_s": np.sort(rng.uniform(0, 120, 20))}
        settings = CutSettings(target="20s", order=order, sound_lead_s=sound_lead_s)
        done = Cut(settings, ("whip",) if transition_s else (), transition_s)(row)
        edits, clips = done["edits"], {clip["clip"]: clip for clip in done["clips"]}
        assert reel_seconds(edits) == pytest.approx(20.0, abs=0.02)
        bounds = {}
        for clip in done["clips"]:
            low, _ = bounds.get(clip["shot"], (clip["start_s"], 0))
            bounds[clip["shot"]] = low, clip["end_s"]
        for edit, after in itertools.zip_longest(edits, edits[1:]):
            low, high = bounds[clips[edit["clip"]]["shot"]]
            assert low - 1e-6 <= edit["source_start_s"] < edit["source_end_s"] <= high + 1e-6
            length = edit["source_end_s"] - edit["source_start_s"]
            assert length >= settings.min_clip_s - 1e-6
            assert edit["transition_s"] + (after or edit)["transition_s"] <= length
            assert abs(edit["sound_lead_s"]) <= min(sound_lead_s, length / 2)
            assert not (edit["sound_lead_s"] and edit["transition_s"])
        spans = sorted((edit["source_start_s"], edit["source_end_s"]) for edit in edits)
        assert all(end <= start + 1e-6 for (_, end), (start, _) in itertools.pairwise(spans))


def test_no_clip_begins_or_ends_on_a_flash() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        row = scored(60.0, [12.0, 31.0], rng)
        bare = Cut(CutSettings(target="15s"), (), 0.0)(row)["edits"]
        ends = [edit[name] for edit in bare for name in ("source_start_s", "source_end_s")]
        lit = np.sort(np.concatenate([ends, np.array(ends) + 0.04]))
        edits = Cut(CutSettings(target="15s"), (), 0.0)(row | {"flashes_s": lit})["edits"]
        ways = itertools.pairwise(edits)
        cuts = [a["source_end_s"] for a, b in ways if abs(a["source_end_s"] - b["source_start_s"]) > 1e-6]
        for at in [*cuts, edits[-1]["source_end_s"], edits[0]["source_start_s"]]:
            assert np.abs(lit - at).min() > 0.04
        assert reel_seconds(edits) == pytest.approx(15.0, abs=0.02)


@pytest.mark.parametrize("fps", [10.0, 12.5])
def test_slow_frames_of_a_flash_are_shown_at_neither_end(fps: float) -> None:
    """A lit frame is on show until the next one: a clip that ends within it ends on it."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        row = scored(60.0, [12.0, 31.0], rng) | {"probe": {"fps": fps}}
        bare = Cut(CutSettings(target="15s"), (), 0.0)(row)["edits"]
        ends = np.array([edit[name] for edit in bare for name in ("source_start_s", "source_end_s")])
        lit = np.unique(np.floor((ends - 1e-6) * fps).clip(0) / fps)
        edits = Cut(CutSettings(target="15s"), (), 0.0)(row | {"flashes_s": lit})["edits"]
        starts, ends = (np.array([e[name] for e in edits]) for name in ("source_start_s", "source_end_s"))
        seams = np.abs(starts[1:] - ends[:-1]) < 1e-6
        shown = [*starts[~np.append(False, seams)], *(ends[~np.append(seams, False)] - 1e-6)]
        assert not np.isin(np.floor(np.array(shown) * fps + 1e-7) / fps, lit).any()


def test_rows_of_an_older_version_are_cut_as_before() -> None:
    row = scored(100.0, [20.0, 50.0], np.random.default_rng(4))
    plain = Cut(CutSettings(target="20s"), (), 0.0)(row)["edits"]
    for unknown in ({"speech": None, "flashes_s": None}, {"speech": np.empty(0, np.float32)}):
        assert Cut(CutSettings(target="20s"), (), 0.0)(row | unknown)["edits"] == plain


def test_the_best_clip_opens_a_reel_that_begins_with_the_best() -> None:
    rng = np.random.default_rng(9)
    row = scored(120.0, list(rng.uniform(0, 120, 30)), rng)
    done = Cut(CutSettings(target="20s", order="best_first"), (), 0.0)(row)
    scores = {clip["clip"]: clip["score"] for clip in done["clips"]}
    shown = [edit["clip"] for edit in done["edits"]]
    assert shown[0] == max(shown, key=scores.get)
    takes = [[shown[0]]]
    for before, clip in itertools.pairwise(shown):
        takes[-1].append(clip) if clip == before + 1 else takes.append([clip])
    best = [max(scores[clip] for clip in take) for take in takes]
    assert best == sorted(best, reverse=True)
    in_time = Cut(CutSettings(target="20s"), (), 0.0)(row)["edits"]
    assert sorted(shown) == [edit["clip"] for edit in in_time]


def test_pieces_of_a_take_stay_together_whatever_opens_the_reel() -> None:
    row = scored(60.0, [30.0], np.random.default_rng(5))
    row["importance"][:] = 0.1
    row["importance"][20:36] = np.linspace(0.5, 1.0, 16)  # 10 s to 18 s, the last piece the best
    row["importance"][80:90] = 0.8
    row["novelty"][:] = 0.0
    edits = Cut(CutSettings(target="12s", repeat=1.0, order="best_first"), (), 0.0)(row)["edits"]
    first = [edit for edit in edits if 9 < edit["source_start_s"] < 19]
    assert edits[: len(first)] == first
    assert len(first) > 1
    assert all(a["source_end_s"] == b["source_start_s"] for a, b in itertools.pairwise(first))


def test_what_looks_like_a_clip_of_the_reel_stays_out_and_says_so() -> None:
    row = scored(80.0, [10.0 * k for k in range(1, 8)], np.random.default_rng(6))
    row["features"] = np.repeat(np.eye(8, dtype=np.float16), 20, axis=0)
    row["features"][60:80] = row["features"][:20] + np.float16(0.01)  # shot 3 is shot 0 again
    row["importance"][:] = np.repeat([0.95, 0.3, 0.5, 0.9, 0.4, 0.45, 0.35, 0.3], 20)
    done = Cut(CutSettings(target="20s", apart=0.05), (), 0.0)(row)
    assert {clip["shot"] for clip in done["clips"] if clip["chosen"]}.isdisjoint({3})
    twin = next(clip for clip in done["clips"] if clip["shot"] == 3)
    assert "; like clip " in twin["why"]
    assert twin["why"].endswith("which is in the reel")
    loose = Cut(CutSettings(target="20s", apart=0.0), (), 0.0)(row)
    assert 3 in {clip["shot"] for clip in loose["clips"] if clip["chosen"]}


@pytest.mark.parametrize("order", ["chronological", "best_first"])
@pytest.mark.parametrize("speech", [False, True])
def test_no_more_clips_than_fill_the_reel(order: str, speech: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as when they come in one by one."""
    rng = np.random.default_rng(11)
    rows = []
    for seconds in rng.uniform(30, 120, 12):
        row = scored(seconds, list(rng.uniform(0, seconds, int(seconds / rng.uniform(2, 9)))), rng)
        row["features"] = row["features"][rng.integers(0, 9, len(row["features"]))]
        rows.append(row | {"speech": spoken(*TALK, seconds=seconds)} if speech else row)
    cut = Cut(CutSettings(target="40%", order=order, apart=0.2), ("whip",), 0.4)
    found = [cut(row)["edits"] for row in rows]
    monkeypatch.setattr("stages.cut.bisect_left", lambda seq, _, key: next(filter(key, seq), len(seq)))
    assert [cut(row)["edits"] for row in rows] == found


def test_the_reel_is_shorter_rather_than_show_the_same_again() -> None:
    """Two scenes that come back again and again, and one that stays."""
    row = scored(80.0, [10.0 * k for k in range(1, 8)], np.random.default_rng(6))
    row["features"] = np.repeat(np.eye(8, dtype=np.float16)[[0, 1, 0, 1, 0, 1, 2, 2]], 20, axis=0)
    done = Cut(CutSettings(target="50s", max_share=1.0), (), 0.0)(row)
    shown = sorted({clip["shot"] for clip in done["clips"] if clip["chosen"]})
    assert len(shown) == 3
    assert [shot % 2 for shot in shown if shot < 6] in ([0, 1], [1, 0])
    assert reel_seconds(done["edits"]) == pytest.approx(30.0)
    whys = [clip["why"] for clip in done["clips"] if not clip["chosen"]]
    assert all(why.endswith("which is in the reel: it is rather shorter than asked for") for why in whys)


def test_likenesses_of_many_clips_are_those_of_clip_by_clip() -> None:
    rng = np.random.default_rng(12)
    count = 2 * BLOCK + 100
    embedding = rng.normal(size=(300, 16))[rng.integers(0, 300, count)] + 0.1 * rng.normal(size=(count, 16))
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    score, shot = rng.uniform(size=count).round(2), rng.integers(0, 200, count)
    like, kept = np.full(count, -1), np.zeros(count, bool)
    for k in np.argsort(-score, kind="stable"):
        if like[k] < 0:
            kept[k] = True
            near = (1 - embedding @ embedding[k] < 0.01) & (shot != shot[k])
            like[near & ~kept & (like < 0)] = k
    assert 100 < (like < 0).sum() < count - 100
    assert np.array_equal(likenesses(embedding, score, shot, 0.01), like)


def test_a_scene_that_never_changes_fills_its_reel() -> None:
    row = scored(100.0, [], np.random.default_rng(7))
    row["features"][:] = 1
    done = Cut(CutSettings(target="40s", apart=0.3), (), 0.0)(row)
    assert reel_seconds(done["edits"]) == pytest.approx(40.0, abs=0.02)


def test_a_lecture_with_one_slide_all_along_still_fills_its_reel() -> None:
    row = talking(100.0, [10.0 * k for k in range(1, 10)], np.random.default_rng(7))
    row["features"][:] = 1
    done = Cut(CutSettings(target="40s", apart=0.3), (), 0.0)(row)
    assert reel_seconds(done["edits"]) == pytest.approx(40.0, abs=0.02)


def test_sound_leads_or_trails_where_somebody_speaks_and_is_cut_in_a_pause() -> None:
    led = 0
    for seed in range(5):
        row = talking(120.0, [], np.random.default_rng(seed))
        edits = Cut(CutSettings(target="20s", sound_lead_s=0.4), (), 0.0)(row)["edits"]
        led += sum(edit["sound_lead_s"] != 0 for edit in edits)
        assert edits[0]["sound_lead_s"] == 0
        assert in_words(row, edits) == 0
        silent = scored(120.0, [], np.random.default_rng(seed))
        edits = Cut(CutSettings(target="20s", sound_lead_s=0.4), (), 0.0)(silent)["edits"]
        assert not any(edit["sound_lead_s"] for edit in edits)
    assert led >= 5


def test_settings_that_contradict_are_refused() -> None:
    with pytest.raises(ValidationError, match="min_clip_s"):
        CutSettings(min_clip_s=5, max_clip_s=2)


def test_a_number_is_a_length_in_seconds() -> None:
    assert CutSettings(target=90).target == "90s"


def test_edits_are_in_time_order_inside_their_clips_and_end_to_end() -> None:
    rng = np.random.default_rng(4)
    row = scored(120.0, list(rng.uniform(0, 120, 25)), rng)
    done = Cut(CutSettings(target="20s"), ("whip",), 0.4)(row)
    edits, clips = done["edits"], {clip["clip"]: clip for clip in done["clips"]}
    at = 0.0
    for edit in edits:
        clip = clips[edit["clip"]]
        assert clip["chosen"]
        assert clip["start_s"] - 1e-6 <= edit["source_start_s"] < edit["source_end_s"] <= clip["end_s"] + 1e-6
        assert edit["reel_start_s"] == pytest.approx(at - edit["transition_s"])
        at = edit["reel_start_s"] + edit["source_end_s"] - edit["source_start_s"]
    assert (edits[0]["transition"], edits[0]["transition_s"]) == ("cut", 0)
    assert [edit["source_start_s"] for edit in edits] == sorted(edit["source_start_s"] for edit in edits)
    assert at == pytest.approx(reel_seconds(edits))


def test_pieces_of_one_take_are_joined_without_an_effect() -> None:
    row = scored(30.0, [], np.random.default_rng(5))
    row["importance"][:] = 0.1
    row["importance"][20:36] = 1.0  # 10 s to 18 s
    row["novelty"][:] = 0.0
    edits = Cut(CutSettings(target="8s", repeat=1.0), ("whip",), 0.4)(row)["edits"]
    touching = [
        b for a, b in itertools.pairwise(edits) if abs(a["source_end_s"] - b["source_start_s"]) < 1e-6
    ]
    assert touching
    assert all(edit["transition"] == "cut" and edit["transition_s"] == 0 for edit in touching)


def test_clips_of_two_videos_do_not_go_on_although_their_times_do() -> None:
    shared = {"score": 0.5, "embedding": np.ones(4) / 2}
    clips = [
        shared | {"clip": n, "shot": n, "video_id": video, "start_s": 4.0 * n, "end_s": 4.0 * n + 4.0}
        for n, video in enumerate("aab")
    ]
    edits, _ = Cut(CutSettings(apart=0.0), ("whip",), 0.4).edits(clips, 11.6)
    assert [edit["transition"] for edit in edits] == ["cut", "cut", "whip"]


def test_the_important_part_is_chosen_and_says_why() -> None:
    rng = np.random.default_rng(6)
    row = scored(100.0, [10.0 * k for k in range(1, 10)], rng)
    row["importance"][:] = 0.05
    row["importance"][80:100] = 0.95  # 40 s to 50 s
    done = Cut(CutSettings(target="10s", novelty_share=0.0), (), 0.0)(row)
    assert all(39.9 <= edit["source_start_s"] < 50 for edit in done["edits"])
    best = min((c for c in done["clips"] if c["chosen"]), key=lambda c: c["clip"])
    assert "learned importance" in best["why"]


def test_further_pieces_of_a_shot_count_less() -> None:
    scores = discounted(np.array([0.8, 1.0, 0.5, 0.4]), np.array([0, 0, 0, 1]), 0.5)
    assert scores == pytest.approx([0.4, 1.0, 0.125, 0.4])


def test_reel_shows_more_than_one_shot_although_one_is_the_best() -> None:
    row = scored(60.0, [20.0, 40.0], np.random.default_rng(8))
    row["novelty"][:] = 0.0
    for part, level in ((slice(0, 40), 0.9), (slice(40, 80), 0.7), (slice(80, 120), 0.6)):
        row["importance"][part] = level
    done = Cut(CutSettings(target="12s"), (), 0.0)(row)
    shots = {clip["shot"] for clip in done["clips"] if clip["chosen"]}
    assert shots == {0, 1, 2}


def test_black_clips_are_left_out() -> None:
    row = scored(40.0, [20.0], np.random.default_rng(7))
    row["importance"][:40] = 1.0
    row["luma"][:40] = 0.0
    done = Cut(CutSettings(target="10s"), (), 0.0)(row)
    assert all(edit["source_start_s"] >= 20 for edit in done["edits"])
    assert done["clips"][0]["why"] == "black picture"


def test_clips_begin_and_end_where_there_is_something_to_see() -> None:
    times = np.arange(0, 10, 0.5)
    luma = np.where((times >= 1.5) & (times < 7.5), 0.4, 0.01)
    assert lit(times, luma, 0.0, 10.0, 1.2) == (1.5, 7.5)
    assert lit(times, luma, 2.2, 5.1, 1.2) == (2.2, 5.1)
    assert lit(times, luma, 7.0, 10.0, 1.2) == (7.0, 10.0)  # half a second is no clip
    assert lit(times, luma, 8.0, 10.0, 1.2) == (8.0, 10.0)


def test_reel_of_a_film_that_fades_shows_no_black() -> None:
    rng = np.random.default_rng(8)
    row = scored(60.0, [10, 20, 30, 40, 50], rng)
    row["luma"][row["times_s"] % 10 < 1.5] = 0.0
    for edit in Cut(CutSettings(target="20s"), ("zoom",), 0.5)(row)["edits"]:
        shown = (row["times_s"] >= edit["source_start_s"]) & (row["times_s"] < edit["source_end_s"])
        assert (row["luma"][shown] > 0).all()


def test_trimming_keeps_the_seam_of_a_run_closed() -> None:
    spans = np.array([[0.0, 4.0], [4.0, 8.0], [20.0, 24.0]])
    trimmed = trim(spans, np.array([False, True, False]), 3.0, 1.0)
    assert trimmed[0, 1] == trimmed[1, 0] == 4.0
    assert (trimmed[:, 1] - trimmed[:, 0]).sum() == pytest.approx(9.0)
    assert ((trimmed[:, 1] - trimmed[:, 0]) >= 1.0).all()


def parts(**changes: float) -> dict:
    clip = {"clip": 0, "shot": 0, "score": 0.5, "importance": 0.5, "novelty": 0.4, "motion": 0.1, "luma": 0.5}
    return clip | {"loudness_lufs": None} | changes


def test_reasons_name_the_rank_and_what_stands_out() -> None:
    clips = [parts(clip=k, shot=k // 2, score=0.1 * k, importance=0.1 * k) for k in range(8)]
    clips[2] |= {"novelty": 0.8, "motion": 0.3}
    clips[4] |= {"luma": 0.0}
    explain(clips, {2, 3, 7})
    assert [clip["rank"] for clip in clips] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert clips[7]["why"] == "ranked 1 of 8: learned importance 0.70 (top 13 %)"
    assert clips[2]["why"] == "ranked 6 of 8: novel 0.80, much motion"
    assert clips[3]["why"] == "ranked 5 of 8: good in the sum of its parts"
    assert clips[6]["why"] == (
        "ranked 2 of 8: learned importance 0.60 (top 25 %); a better piece of its shot is in the reel"
    )
    assert clips[5]["why"] == "ranked 3 of 8; others fit the length better"
    assert clips[0]["why"] == "ranked 8 of 8; better ones fill the reel"
    assert clips[4]["why"] == "black picture"


def test_what_stands_out_is_the_highest_quarter_of_what_is_known() -> None:
    rng = np.random.default_rng(13)
    values = {name: rng.uniform(size=97).round(1) for name in ("importance", "novelty", "motion")}
    values["loudness_lufs"] = np.where(rng.uniform(size=97) < 0.3, np.nan, rng.uniform(-40, -10, 97))
    words = ("learned importance", "novel", "much motion", "loud")
    for k, found in enumerate(strengths(values)):
        above = [
            word
            for word, part in zip(words, values.values(), strict=True)
            if part[k] > np.quantile(part[np.isfinite(part)], 0.75)
        ]
        assert [text.split(" 0.")[0].split(" 1.")[0] for text in found] == above
        if "learned importance" in above:
            share = np.mean(values["importance"] >= values["importance"][k])
            assert f"(top {np.ceil(100 * share):.0f} %)" in found[0]


def test_nothing_is_called_learned_where_nothing_was() -> None:
    clips = [parts(clip=k, shot=k, score=0.1 * k, importance=0.1 * k, novelty=0.1 * k) for k in range(8)]
    explain(clips, {7})
    assert clips[7]["why"] == "ranked 1 of 8: novel 0.70"


def test_the_thumbnail_is_that_of_the_most_important_sample() -> None:
    row = scored(20.0, [10.0], np.random.default_rng(9))
    row["thumbnails"] = [b"%d" % k for k in range(40)]
    for clip in Cut(CutSettings(target="5s"), (), 0.0)(row)["clips"]:
        sample = int(clip["thumbnail"])
        assert clip["thumbnail_s"] == row["times_s"][sample]
        inside = (row["times_s"] >= clip["start_s"] - 1e-6) & (row["times_s"] < clip["end_s"] - 1e-6)
        assert row["importance"][sample] == row["importance"][inside].max()
