"""`reelmap reel`: one reel over the videos that are meant, made once, without what cannot be read."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import opentimelineio as otio
import pytest

from jobs import reel as job
from jobs.highlights import COULD_NOT_START, DONE, INTERRUPTED, SOME_FAILED
from jobs.reel import Options, reel
from jobs.verify import verify
from pipeline import cuts, tables
from pipeline.best import Choice, From, choose, matches
from pipeline.config import Settings
from pipeline.library import LibrarySettings
from pipeline.recut import list_results
from stages.nn.voice import STEP_S
from stages.pauses import edges_of
from tests.media import Shot, make_video, read_pictures
from tests.pipeline.analysed import analyse
from tests.pipeline.made_up import part_of, result
from tests.pipeline.made_up import tables as made_up

PLAIN = {"effects": {"kind": "none"}, "colour": {"kind": "none"}, "codec": {"kind": "none"}}
KINDS = {
    "wide.mp4": {"size": (160, 90)},
    "wider.mp4": {"size": (320, 180), "audio": None},
    "turned.mp4": {"rotation": 90},
}


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory, bundle: str) -> Path:
    folder = tmp_path_factory.mktemp("reel")
    (folder / "library" / "2026-11-01").mkdir(parents=True)
    for look, (name, kind) in enumerate(KINDS.items()):
        shots = [Shot(2, 3 * look + number, 0.1 * number) for number in range(3)]
        make_video(folder / "library" / "2026-11-01" / name, shots=shots, **kind)
    settings = Settings.model_validate(PLAIN | {"cut": {"target": "6s"}, "bundle": bundle})
    analyse(folder / "library", folder / "out", settings)
    return folder / "out"


@pytest.fixture
def output(analysed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(analysed, tmp_path / "out")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a process of its own: starting it costs seconds each time."""

    monkeypatch.setattr(job, "through", through_here)


def through_here(rows: list, _name: str, make: object, args: tuple, *_: object) -> object:
    yield from ((row, make(*args)(row)) for row in rows)


def shows(row: dict, name: str) -> bool:
    """Whether a row of the render, or of the trial of one video, is about the file of that name."""
    videos = row["choice"].videos if "choice" in row else [row["video"]]
    return any(video["uri"].endswith(f"/{name}") for video in videos)


def options(
    output: Path, bundle: str, name: str | None = "best", target: str = "5s", **more: object
) -> Options:
    videos = more.pop("videos", From())
    flags = {"cut.target": target, "bundle": bundle, "effects.kind": "none", "colour.kind": "none"}
    flags |= {"reel.apart": 0} | more
    return Options(str(output), name, flags=tuple(flags.items()), videos=videos)


def row_of(output: Path) -> dict:
    (row,) = cuts.read(str(output)).to_pylist()
    return row


def test_in_a_process_of_its_own_one_reel_over_all_videos(output: Path, bundle: str) -> None:
    assert reel(options(output, bundle)) == DONE
    row = row_of(output)
    assert (row["video_id"], row["name"], row["status"], row["reason"]) == (None, "best", "ok", None)
    assert row["uri"] == f"{cuts.place_of(row)}/reel.mp4"
    assert row["uri"].startswith("media/library/best/")
    assert (row["width"], row["height"]) == (320, 180)
    assert row["duration_s"] == pytest.approx(5, abs=0.1)
    assert len(read_pictures(output / row["uri"])) == round(row["duration_s"] * row["fps"])
    assert row["loudness_lufs"] == pytest.approx(-16, abs=0.5)
    assert row["true_peak_dbtp"] < -1
    videos = {video["video_id"]: video for video in tables.read(str(output), "videos").to_pylist()}
    assert {Path(edit["uri"]).name for edit in row["edits"]} == set(KINDS)
    for edit in row["edits"]:
        assert videos[edit["video_id"]]["uri"] == edit["uri"]
    assert row["read_bytes"] > 0
    assert row["source_bytes"] == sum(video["size_bytes"] for video in videos.values())
    index = (output / "report/index.html").read_text()
    assert f'src="../{row["uri"]}"' in index
    said: list[str] = []
    assert verify(str(output), False, False, None, said.append) == 0, said
    assert "1 reel" in said[-1]


@pytest.mark.usefixtures("here")
def test_made_once_and_again_only_if_something_changed(
    output: Path, bundle: str, capsys: pytest.CaptureFixture
) -> None:
    reel(options(output, bundle))
    first = row_of(output)
    assert reel(options(output, bundle)) == DONE
    assert "nothing to do" in capsys.readouterr().err
    assert row_of(output) == first
    assert reel(options(output, bundle, **{"reel.per_video": 1})) == DONE
    assert len(row_of(output)["edits"]) == 3
    # Another result of one of the videos may be another choice.
    new = result("new", uri="/library/new.mp4", width=1024)
    new["videos"][0]["speech"] = []
    made = made_up(new, width=1024)
    tables.write_part(str(output), part_of(made), made)
    assert reel(options(output, bundle, **{"reel.per_video": 1})) == DONE
    assert "is no longer there" in row_of(output)["reason"] or "does not exist" in row_of(output)["reason"]


@pytest.mark.usefixtures("here")
def test_a_video_that_is_gone_is_left_out_and_the_reel_says_so(
    analysed: Path, output: Path, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = analysed.parent / "library" / "2026-11-01" / "wide.mp4"
    away = gone.rename(gone.with_suffix(".away"))
    try:
        assert reel(options(output, bundle)) == DONE
    finally:
        away.rename(gone)
    row = row_of(output)
    assert row["reason"].startswith("left out: wide: cannot look at")
    assert {Path(edit["uri"]).name for edit in row["edits"]} == {"wider.mp4", "turned.mp4"}


@pytest.mark.parametrize("poison", ["wide.mp4", "wider.mp4"])
def test_a_video_that_kills_its_decoder_is_left_out_and_the_reel_is_made(
    output: Path, bundle: str, monkeypatch: pytest.MonkeyPatch, poison: str
) -> None:
    def through(rows: list, name: str, make: object, args: tuple, *rest: object) -> object:
        for row in rows:
            if shows(row, poison):
                yield row, row | {"failure": {"stage": name, "reason": "its worker died"}, "killed": True}
            else:
                yield from through_here([row], name, make, args, *rest)

    monkeypatch.setattr(job, "through", through)
    assert reel(options(output, bundle)) == DONE
    row = row_of(output)
    assert row["reason"] == f"left out: {poison.removesuffix('.mp4')}: its worker died"
    assert {Path(edit["uri"]).name for edit in row["edits"]} == KINDS.keys() - {poison}


def test_a_render_that_dies_and_no_video_alone_is_tried_once_more(
    output: Path, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def through(rows: list, name: str, *rest: object) -> object:
        for row in rows:
            if "choice" in row:
                deaths.append(name)
                yield row, row | {"failure": {"stage": name, "reason": "its worker died"}, "killed": True}
            else:
                yield from through_here([row], name, *rest)

    deaths: list[str] = []
    monkeypatch.setattr(job, "through", through)
    assert reel(options(output, bundle)) == SOME_FAILED
    assert len(deaths) == 2
    assert row_of(output)["reason"] == "its worker died, twice, and with no video alone"


def test_why_a_video_is_left_out_is_said_without_secrets() -> None:
    why = {"a": "wide: cannot look at https://u:hunter2-hunter2@host/wide.mp4: it does not exist"}
    assert job.reasons(why) == ["left out: wide: cannot look at https://host/wide.mp4: it does not exist"]


@pytest.mark.usefixtures("here")
def test_a_video_that_is_not_wanted_is_excluded(output: Path, bundle: str) -> None:
    assert reel(options(output, bundle, **{"library.exclude": ["WIDE.*"]})) == DONE
    assert {Path(edit["uri"]).name for edit in row_of(output)["edits"]} == {"wider.mp4", "turned.mp4"}


@pytest.mark.usefixtures("here")
def test_an_index_that_a_killed_reel_did_not_write_is_written_by_the_same_command(
    output: Path, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(job, "write_report", kill)
        assert reel(options(output, bundle)) == INTERRUPTED
    row = row_of(output)
    assert reel(options(output, bundle)) == DONE
    assert row_of(output) == row
    assert row["uri"] in (output / "report/index.html").read_text()


@pytest.mark.usefixtures("here")
def test_without_any_source_the_row_says_why(analysed: Path, output: Path, bundle: str) -> None:
    library = analysed.parent / "library"
    away = library.rename(library.with_name("away"))
    try:
        assert reel(options(output, bundle)) == SOME_FAILED
    finally:
        away.rename(library)
    row = row_of(output)
    assert row["status"] == "failed"
    assert "does not exist" in row["reason"]


@pytest.mark.usefixtures("here")
def test_the_order_is_that_of_time_or_of_score(output: Path, bundle: str) -> None:
    reel(options(output, bundle))
    uris = [edit["uri"] for edit in row_of(output)["edits"]]
    modified = {
        row["uri"]: (row["modified_at"], row["uri"]) for row in tables.read(str(output), "videos").to_pylist()
    }
    assert uris == sorted(uris, key=modified.get)
    reel(options(output, bundle, **{"reel.order": "best_first", "reel.per_video": 1}))
    settings = Settings.model_validate(
        PLAIN | {"cut": {"target": "5s"}, "reel": {"order": "best_first", "per_video": 1, "apart": 0}}
    )
    choice = choose(str(output), list_results(str(output), LibrarySettings()), settings, 5.0)
    values = [clip["score"] for clip in choice.clips]
    assert values == sorted(values, reverse=True)
    assert [edit["video_id"] for edit in row_of(output)["edits"]] == [
        clip["video_id"] for clip in choice.clips
    ]


def test_what_does_not_fill_the_target_is_said_with_what_would(
    output: Path, bundle: str, capsys: pytest.CaptureFixture, here: None
) -> None:
    assert reel(options(output, bundle, target="60s", **{"reel.per_video": 1})) == DONE
    assert "--per-video" in capsys.readouterr().err
    assert row_of(output)["duration_s"] < 10


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"videos": From(("s3://other/*",))}, "is meant by --from, --exclude"),
        ({"videos": From(since=datetime.now(UTC) + timedelta(days=1))}, "is meant by --from, --exclude"),
        ({"reel.font": "/nowhere.ttf"}, "not a TrueType font"),
        ({"name": "a/b"}, "cannot be a name"),
    ],
)
def test_what_cannot_be_meant_is_said_before_any_work(
    output: Path, bundle: str, capsys: pytest.CaptureFixture, given: dict, words: str
) -> None:
    assert reel(options(output, bundle, **given)) == COULD_NOT_START
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("s3://cam/2026-11-*", True),
        ("s3://cam/2026-11-03", True),
        ("s3://cam/2026-11-03/", True),
        ("s3://cam/2026-1", False),
        ("*surf*", True),
        ("surf", False),
        ("*/2026-11-0[1-3]", True),
        ("s3://other/*", False),
    ],
)
def test_videos_are_meant_by_globs_or_by_how_their_uris_begin(pattern: str, fits: bool) -> None:
    assert matches("s3://cam/2026-11-03/surf.mp4", pattern) is fits


def test_many_videos_are_read_part_by_part(tmp_path: Path) -> None:
    """A thousand videos, of two widths of embeddings; the best of them, each once."""
    output = str(tmp_path)
    for batch in range(20):
        width = 8 if batch % 2 else 12
        names = [f"{batch:02d}-{number:02d}" for number in range(50)]
        made = made_up(*(result(name, width=width, duration_s=30.0) for name in names), width=width)
        tables.write_part(output, part_of(made), made)
    settings = Settings.model_validate({"cut": {"target": "60s"}, "reel": {"per_video": 1, "apart": 0}})
    videos = list_results(output, LibrarySettings())
    choice = choose(output, videos, settings, 60.0)
    assert choice.clips_looked_at == 6000
    assert choice.seconds == pytest.approx(60, abs=0.2)
    assert len({edit["video_id"] for edit in choice.edits}) == len(choice.edits)


def choice_of(output: str, target_s: float = 40.0, **groups: dict) -> Choice:
    settings = Settings.model_validate({"cut": {}, "reel": {"apart": 0}} | groups)
    return choose(output, list_results(output, LibrarySettings()), settings, target_s)


def test_clips_of_every_video_are_cut_between_its_own_words(tmp_path: Path) -> None:
    """Talk with a pause every few seconds, elsewhere in each video."""
    output, known = str(tmp_path), {}
    for number in range(6):
        speech = np.full(round(150 / STEP_S), 0.95, np.float32)
        for pause_s in np.arange(1 + 0.37 * number, 150, 2.9 + 0.2 * number):
            speech[round(pause_s / STEP_S) : round((pause_s + 0.7) / STEP_S)] = 0.01
        rows = result(f"v{number}")
        rows["videos"][0]["speech"] = speech.tolist()
        known[f"v{number}"] = edges_of(speech, np.empty(0), 0.12)
        made = made_up(rows)
        tables.write_part(output, part_of(made), made)

    def broken(choice: Choice) -> int:
        """Cuts inside a word, of clips that are long enough to hold two pauses."""
        found = 0
        lengths = {clip["clip"]: clip["end_s"] - clip["start_s"] for clip in choice.clips}
        for edit in choice.edits:
            if lengths[edit["clip"]] < 3.5:
                continue
            edges = known[edit["video_id"]]
            found += int(edges.entering(np.array([edit["source_start_s"]]))[0] > 0.6)
            found += int(edges.leaving(np.array([edit["source_end_s"]]))[0] > 0.6)
        return found

    spoken, deaf = choice_of(output), choice_of(output, cut={"speech": "off"})
    assert len(spoken.edits) >= 4
    assert broken(deaf) >= 4
    assert broken(spoken) == 0
    assert spoken.seconds == pytest.approx(40, abs=1)
    clips = {clip["clip"]: clip for clip in spoken.clips}
    for edit in spoken.edits:
        clip = clips[edit["clip"]]
        assert clip["video_id"] == edit["video_id"]
        assert clip["start_s"] - 1e-6 <= edit["source_start_s"] < edit["source_end_s"] <= clip["end_s"] + 1e-6


def test_tables_that_know_nothing_of_words_and_flashes_are_cut_as_before(tmp_path: Path) -> None:
    output = str(tmp_path)
    rows = [result(f"v{number}") for number in range(6)]
    for one in rows:
        one["videos"][0] |= {"speech": None, "flashes_s": None}
    made = made_up(*rows)
    made["videos"] = made["videos"].drop_columns("flashes_s")
    tables.write_part(output, part_of(made), made)
    assert choice_of(output).seconds == pytest.approx(40, abs=0.1)


def test_the_order_of_a_preset_is_that_of_the_reel_unless_it_is_said(tmp_path: Path) -> None:
    output = str(tmp_path)
    made = made_up(*(result(f"v{number}") for number in range(8)))
    tables.write_part(output, part_of(made), made)

    def scores(**groups: dict) -> list[float]:
        return [clip["score"] for clip in choice_of(output, **groups).clips]

    by_score = sorted(scores(), reverse=True)
    assert scores() != by_score
    assert scores(cut={"order": "best_first"}) == by_score
    again = scores(cut={"order": "best_first"}, reel={"order": "chronological", "apart": 0})
    assert again == scores()


@pytest.mark.usefixtures("here")
def test_what_a_preset_asks_for_is_done_or_said(
    output: Path, bundle: str, capsys: pytest.CaptureFixture
) -> None:
    asked = {"render.aspect": "9:16", "render.copy_video": True, "render.clips": True}
    assert reel(options(output, bundle, **asked)) == DONE
    said = capsys.readouterr().err
    assert "render.copy_video does not apply" in said
    assert "render.clips does not apply" in said
    row = row_of(output)
    assert row["width"] * 16 == row["height"] * 9
    (file,) = (name for name in row["files"] if name.endswith("/reel.otio"))
    timeline = otio.adapters.read_from_file(str(output / file))
    names = [clip.name for clip in timeline.video_tracks()[0].find_clips()]
    assert names == [Path(edit["uri"]).name for edit in row["edits"]]
