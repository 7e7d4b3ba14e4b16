"""`reelmap demo FOLDER`: draws the library, makes its reels, checks what came out, says where to look."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jobs.demo import BROKEN, FILMS, render_demo_library
from jobs.highlights import DONE, SOME_FAILED, Options, highlights
from pipeline import storage, tables
from pipeline.report import REPORT
from pipeline.schema import FAILED, OK

# Long enough to show transitions, short enough that the films of half a minute are cut down.
TARGET = "12s"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    status: str
    reel: str | None  # path


def run_demo(folder: Path, say: Say) -> int:
    """The exit code: 0 when every film has its reel and the broken file failed, else 1 (or the run's own)."""
    library, output = storage.absolute(str(folder / "library")), storage.absolute(str(folder / "output"))
    say(f"a library of {len(FILMS)} short films and a broken file, in {library}")
    render_demo_library(Path(library), say)
    code = highlights(Options(library, output, flags=(("cut.target", TARGET),)))
    if code not in (DONE, SOME_FAILED):
        return code
    results = read_results(library, output)
    tell(results, output, say)
    wrong = surprises({name: result.status for name, result in results.items()})
    if wrong:
        say(f"the demo did not end as it should: {'; '.join(wrong)}. The report says why.")
    return SOME_FAILED if wrong else DONE


def read_results(library: str, output: str) -> dict[str, Result]:
    """The newest result of each file of the library, by its name below `library`."""
    newest = tables.current(output)
    columns = ["video_id", "uri", "status", "published_at"]
    videos = tables.read(output, "videos", columns, newest=newest).sort_by("published_at").to_pylist()
    reels = {
        row["video_id"]: storage.join(output, row["uri"])
        for row in tables.read(output, "reels", ["video_id", "uri"], newest=newest).to_pylist()
    }
    # A file that was drawn again is another video of the same name: the last one published is it.
    return {
        video["uri"].removeprefix(f"{library}/"): Result(video["status"], reels.get(video["video_id"]))
        for video in videos
        if video["uri"].startswith(f"{library}/")
    }


def surprises(status: dict[str, str]) -> list[str]:
    """What ended otherwise than it should, in words: each film is ok, the broken file and no other failed."""
    expected = {film.name: OK for film in FILMS} | {BROKEN: FAILED}
    expected |= {name: OK for name in status if name not in expected}
    return [
        f"{name} is {status.get(name, 'missing')} instead of {wanted}"
        for name, wanted in expected.items()
        if status.get(name) != wanted
    ]


def tell(results: dict[str, Result], output: str, say: Say) -> None:
    """The reels with their films' names, and the report as a link that a terminal opens."""
    width = max(map(len, results), default=0)
    say("\nThe reels:")
    for name, result in sorted(results.items()):
        if result.reel:
            say(f"  {name:{width}}  {result.reel}")
    if BROKEN in results and results[BROKEN].status == FAILED:
        say(f"  {BROKEN:{width}}  has none: it is broken on purpose (the report says how)")
    say(f"\nThe report, to be opened in a browser:\n  {Path(output, REPORT, 'index.html').as_uri()}")
