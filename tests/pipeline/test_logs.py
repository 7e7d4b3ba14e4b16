"""What is logged: one event a line, with its place, without secrets; plain lines for people."""

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest
from fsspec.asyn import get_loop, sync

from pipeline import logs
from pipeline.logs import NOWHERE, Place, log
from pipeline.progress import Counts, Display, make_console

PLACE = Place("run-1", "decode", "abc", 3)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    handlers, level = list(log.handlers), log.level
    yield
    log.handlers[:] = handlers
    log.setLevel(level)
    logs.at(NOWHERE)


def events(capsys: pytest.CaptureFixture[str]) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_an_event_says_where_it_happened_and_nothing_that_is_not_known(capsys) -> None:
    logs.configure("json")
    logs.at(PLACE)
    log.warning("failed: %s", "the file is empty", extra={"seconds": 1.5})
    logs.at(Place("run-1"))
    log.info("the run ends")
    first, second = events(capsys)
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "WARNING",
        "run": "run-1",
        "stage": "decode",
        "video_id": "abc",
        "shard": 3,
        "message": "failed: the file is empty",
        "seconds": 1.5,
    }
    assert set(second) == {"time", "level", "run", "message"}


def test_a_name_with_line_breaks_and_broken_bytes_is_still_one_line(capsys) -> None:
    logs.configure("json")
    log.warning("x\ny \udc80 \x1b[31m %s", '"quoted"')
    (event,) = events(capsys)
    assert event["message"] == 'x\ny \udc80 \x1b[31m "quoted"'


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_secret_is_logged(form: logs.Format, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "fakeSecretKey/abc+def")
    logs.configure(form)
    try:
        raise ValueError("GET https://u:hunter2@host/x?X-Amz-Signature=feedbeef with fakeSecretKey/abc+def")
    except ValueError as error:
        log.exception("cannot read s3://u:hunter2@bucket: %s", error)
    said = capsys.readouterr().err
    assert "cannot read s3://bucket" in said
    assert "Traceback" in said
    assert not [secret for secret in ("hunter2", "feedbeef", "fakeSecretKey") if secret in said]


def test_plain_lines_are_warnings_with_their_place(capsys) -> None:
    logs.configure("text")
    log.info("the run begins")
    log.warning("the store does not serve %s", "get_object")
    logs.at(PLACE)
    log.warning("put off")
    assert capsys.readouterr().err.splitlines() == [
        "the store does not serve get_object",
        "decode, video abc, shard 3: put off",
    ]


def test_to_be_configured_again_doubles_no_line(capsys) -> None:
    for form in ("text", "json", "json"):
        logs.configure(form)
    log.warning("once")
    assert [event["message"] for event in events(capsys)] == ["once"]


def test_the_thread_that_talks_to_a_store_knows_for_which_row(capsys) -> None:
    logs.configure("json")
    logs.at(PLACE)

    async def ask() -> None:
        await asyncio.sleep(0)
        log.warning("the store does not serve it")

    sync(get_loop(), ask)
    (event,) = events(capsys)
    assert (event["stage"], event["video_id"], event["shard"]) == ("decode", "abc", 3)


@pytest.mark.parametrize(("said", "form"), [("json", "json"), ("JSON", "json"), ("", "text"), (None, "text")])
def test_the_environment_chooses(said: str | None, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REELMAP_LOG", raising=False)
    if said is not None:
        monkeypatch.setenv("REELMAP_LOG", said)
    assert logs.wanted() == form


def test_what_a_command_says_to_people_becomes_events(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELMAP_LOG", "json")
    console = make_console()
    logs.at(Place("run-1"))
    console.print("3 videos, " + "very " * 100 + "much to do\n\nand more", soft_wrap=True)
    display = Display(Counts(total=1, size_bytes=0), None, console)
    display.message("[1/1] a.mp4: failed in probe: it is empty", warn=True)
    said = events(capsys)
    assert [(event["level"], event["message"][:8], event["run"]) for event in said] == [
        ("INFO", "3 videos", "run-1"),
        ("INFO", "and more", "run-1"),
        ("WARNING", "[1/1] a.", "run-1"),
    ]


def test_without_the_environment_people_read_what_they_did(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REELMAP_LOG", raising=False)
    make_console().print("3 videos")
    assert capsys.readouterr().err == "3 videos\n"
    assert log.level == logging.WARNING
