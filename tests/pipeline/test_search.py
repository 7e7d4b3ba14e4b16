"""Search: exactly the nearest, in whatever parts they lie; a picture is seen as frames were."""

import json
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from jobs import search as job
from jobs.search import DONE, Options, find
from pipeline import storage, tables
from pipeline.config import Settings
from pipeline.search import (
    Found,
    Query,
    Searched,
    Seen,
    clip_query,
    look,
    parse_where,
    picture_query,
    search,
    seconds_of,
)
from stages.decode import DecodeSettings
from stages.features import FeatureSettings
from stages.nn.weights import open_bundle
from tests.media import make_video
from tests.pipeline.analysed import RUN_ID, analyse
from tests.pipeline.made_up import part_of, result
from tests.pipeline.made_up import tables as made_up

WIDTH = 8


def publish(output: str, *names: str, key: str = "k1", width: int = WIDTH, **more: object) -> None:
    results = [result(name, key, width=width, **more) for name in names]
    for one in results:
        one["videos"][0]["run_id"] = f"run-of-{key}"
        for clip in one["clips"]:
            vector = np.array(clip["embedding"])
            clip["embedding"] = list(vector / np.linalg.norm(vector))
    made = made_up(*results, width=width)
    tables.write_part(output, part_of(made), made)


def record(output: str, key: str, run_id: str = "", **features: object) -> None:
    settings = Settings.model_validate({"features": features}).model_dump(mode="json")
    run_id = run_id or f"run-of-{key}"
    text = json.dumps({"run_id": run_id, "settings_key": key, "settings": settings})
    storage.write_bytes(f"{output}/runs/{run_id}.json", text.encode())


@pytest.fixture
def output(tmp_path: Path) -> str:
    where = str(tmp_path / "out")
    for part in ("abc", "de", "f"):
        publish(where, *part)
    return where


def clips(output: str) -> tuple[list[tuple[str, int, int]], np.ndarray]:
    rows = tables.read(output, "clips", ["video_id", "clip", "shot", "embedding"]).to_pylist()
    names = [(row["video_id"], row["clip"], row["shot"]) for row in rows]
    return names, np.array([row["embedding"] for row in rows], np.float32)


def test_the_nearest_of_all_parts_are_found_exactly(output: str) -> None:
    names, vectors = clips(output)
    rng = np.random.default_rng(1)
    for _ in range(20):
        query = rng.standard_normal(WIDTH).astype(np.float32)
        query /= np.linalg.norm(query)
        scores = vectors @ query
        expected = [names[k][:2] for k in np.argsort(-scores)[:7]]
        found = search(look(output), Query(query, None), 7, one_per_shot=False)
        assert [(hit.video_id, hit.clip) for hit in found.hits] == expected
        assert [hit.score for hit in found.hits] == pytest.approx(np.sort(-scores)[:7] * -1, abs=1e-6)
        assert found.clips == len(names)


def test_one_shot_does_not_fill_the_list(output: str) -> None:
    names, vectors = clips(output)
    found = search(look(output), Query(vectors[0], None), 12)
    shots = [(hit.video_id, hit.shot) for hit in found.hits]
    assert len(set(shots)) == len(shots) == 12
    scores = vectors @ vectors[0]
    best = {}
    for (video, _, shot), score in zip(names, scores, strict=True):
        best[video, shot] = max(best.get((video, shot), -1), float(score))
    assert [hit.score for hit in found.hits] == pytest.approx(
        sorted(best.values(), reverse=True)[:12], abs=1e-6
    )


def test_a_clip_is_found_by_number_and_by_moment_and_is_not_its_own_answer(output: str) -> None:
    row = next(
        row for row in tables.read(output, "clips").to_pylist() if (row["video_id"], row["clip"]) == ("b", 3)
    )
    by_number = clip_query(look(output), "b.mp4:3")
    by_moment = clip_query(look(output), f"b.mp4@{(row['start_s'] + row['end_s']) / 2:.2f}")
    assert by_number.itself == by_moment.itself == ("b", 3, row["shot"])
    assert by_number.vector == pytest.approx(row["embedding"])
    found = search(look(output), by_number, 50, one_per_shot=False)
    assert ("b", 3) not in {(hit.video_id, hit.clip) for hit in found.hits}
    assert len(found.hits) == 35
    found = search(look(output), by_number, 50)
    assert ("b", row["shot"]) not in {(hit.video_id, hit.shot) for hit in found.hits}


def test_times_are_read_as_people_write_them() -> None:
    assert [seconds_of(text) for text in ("83.5", "1:23", "1:02:03")] == [83.5, 83, 3723]


def test_clips_of_another_width_are_left_out_in_words(output: str) -> None:
    publish(output, "wide", "wider", key="k2", width=12)
    _, vectors = clips_of_width(output, WIDTH)
    found = search(look(output), Query(vectors[0], None), 5)
    assert found.clips == 36
    assert found.others == {"vectors of 12 numbers, not 8": 12}


def clips_of_width(output: str, width: int) -> tuple[list, np.ndarray]:
    rows = tables.read(output, "clips", ["video_id", "embedding"]).to_pylist()
    return rows, np.array([row["embedding"] for row in rows if len(row["embedding"]) == width], np.float32)


def test_clips_of_another_network_of_the_same_width_are_left_out_too(output: str) -> None:
    publish(output, "other", key="k2")
    record(output, "k1")
    record(output, "k2", kind="resnet18", weights="official")
    seen = Seen(FeatureSettings(batch=1), "rgb", DecodeSettings().size)
    found = search(look(output), Query(np.eye(WIDTH, dtype=np.float32)[0], seen), 50)
    assert "other" not in {hit.video_id for hit in found.hits}
    assert list(found.others) == ["resnet18 features (weights: official, rgb)"]


def test_conditions_are_a_filter(output: str) -> None:
    mask, columns = parse_where("duration>20 and loudness > -30 and chosen = 1")
    found = search(look(output), Query(np.eye(WIDTH, dtype=np.float32)[0], None), 50, False, mask, columns)
    rows = {(row["video_id"], row["clip"]): row for row in tables.read(output, "clips").to_pylist()}
    expected = {
        key
        for key, row in rows.items()
        if row["end_s"] - row["start_s"] > 20 and row["loudness_lufs"] > -30 and row["chosen"]
    }
    assert {(hit.video_id, hit.clip) for hit in found.hits} == expected
    assert 0 < len(expected) < 36


@pytest.mark.parametrize(
    ("query", "where", "words"),
    [
        ("surfers at dusk", None, "neither a picture"),
        ("b.mp4:99", None, "has no clip 99: they are numbered 0 to 5"),
        ("b.mp4@9:59:59", None, "has no clip at 9:59:59"),
        ("z.mp4:1", None, "no video is called"),
        ("gone.jpg", None, "does not exist"),
        ("a.mp4:1", "colour>3", "is no condition"),
        ("a.mp4:1", "score>high", "is no condition"),
    ],
)
def test_what_cannot_be_meant_is_said_in_words(
    output: str, query: str, where: str | None, words: str
) -> None:
    said: list[str] = []
    assert find(Options(output, query, where=where), said.append, said.append) == 2
    assert words in said[-1]


def test_a_text_under_a_pictures_name_is_no_picture(output: str, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_text("no picture")
    said: list[str] = []
    assert find(Options(output, str(tmp_path / "x.jpg")), said.append, said.append) == 2
    assert "is not a picture that can be read" in said[-1]


def test_memory_does_not_grow_with_the_clips(tmp_path: Path) -> None:
    output = str(tmp_path)
    peaks = []
    for number in range(32):
        publish(output, *(f"{number:02d}{letter}" for letter in "abcdefgh"), clips=120, duration_s=120.0)
        if number in (7, 31):
            known = look(output)
            search(known, Query(np.eye(WIDTH, dtype=np.float32)[0], None), 5)
            tracemalloc.start()
            found = search(known, Query(np.eye(WIDTH, dtype=np.float32)[0], None), 5)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert found.clips == 32 * 8 * 120
    assert peaks[1] < 2 * peaks[0]


def test_a_frame_of_a_video_finds_its_clip(tmp_path: Path, bundle: str) -> None:
    """A picture goes the way that frames go: the same vector, up to what a mean over a clip blurs."""
    library, output = tmp_path / "library", str(tmp_path / "out")
    library.mkdir()
    facts = make_video(library / "a.mp4", seconds=12, shots=6, size=(320, 180))
    make_video(library / "b.mp4", seconds=6, shots=2, size=(320, 180), rotation=90)
    settings = {"codec": {"kind": "none"}, "cut": {"target": "4s"}, "saliency": {"enabled": False}}
    settings = Settings.model_validate(settings | {"bundle": bundle})
    analyse(library, output, settings)
    record(output, settings.key(open_bundle(bundle)), RUN_ID)
    with av.open(str(facts.path)) as file:
        frame = next(frame for frame in file.decode(video=0) if frame.time >= 5.0)
        Image.fromarray(frame.to_ndarray(format="rgb24")).save(tmp_path / "frame.png")
    query = picture_query(look(output), str(tmp_path / "frame.png"), open_bundle(bundle))
    hit = search(look(output), query, 1).hits[0]
    assert hit.start_s <= 5.0 < hit.end_s
    assert hit.score > 0.99
    page = tmp_path / "found.html"
    said: list[str] = []
    options = Options(output, str(tmp_path / "frame.png"), 3, page=str(page), bundle=bundle)
    assert find(options, said.append, said.append) == DONE
    assert "a.mp4:" in said[0]
    text = page.read_text()
    assert f'href="out/report/{hit.video_id}.html#clip-{hit.clip}"' in text
    assert text.count("data:image/jpeg;base64,") == 4
    said.clear()
    find(Options(output, "a.mp4:2", as_json=True), said.append, said.append)
    assert {"score", "uri", "clip", "start_s"} <= json.loads(said[0])[0].keys()


def test_of_the_records_only_those_of_results_that_count_are_read(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(output, "k1")
    record(output, "k1", "an-older-run")
    read: list[str] = []
    whole = storage.read_bytes
    monkeypatch.setattr(storage, "read_bytes", lambda uri: read.append(uri) or whole(uri))
    assert look(output).seen.keys() == {"k1"}
    assert read == [f"{output}/runs/run-of-k1.json"]


def test_a_clip_that_a_run_replaces_meanwhile_is_left_out(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def search_and_republish(known: Searched, *rest: object) -> Found:
        found = search(known, *rest)
        publish(output, *"abc", key="k2", minutes=1)
        tables.sweep(output)
        return found

    monkeypatch.setattr(job, "search", search_and_republish)
    said: list[str] = []
    assert find(Options(output, "f.mp4:0", 50, as_json=True), said.append, said.append) == DONE
    assert {hit["video_id"] for hit in json.loads(said[0])} == {"d", "e", "f"}


def test_of_a_file_that_has_changed_the_clips_of_the_old_version_are_not_found(output: str) -> None:
    publish(output, "a2", minutes=1, uri="s3://library/a.mp4")
    found = search(look(output), Query(np.eye(WIDTH, dtype=np.float32)[0], None), 50)
    assert {hit.video_id for hit in found.hits} == {"a2", *"bcdef"}
