"""`reelmap verify OUTPUT [--quick] [--repair]`: do tables and media say the same? One line per difference."""

import json
from collections.abc import Callable
from contextlib import ExitStack

from pipeline import again, schema, storage, tables
from pipeline.lease import Busy, Lost, check_free, lease
from pipeline.verify import Checked, Difference, differences, repair
from pipeline.wording import several, size

NONE, SOME, COULD_NOT_LOOK, INTERRUPTED = 0, 1, 2, 130


def verify(output: str, quick: bool, mend: bool, report: str | None, say: Callable[[str], None]) -> int:
    """Exit code: 0 no difference, 1 differences (mended or not), 2 could not look, 130 interrupted."""
    output, checked, found = storage.absolute(output), Checked(), []
    try:
        check_is_output(output)
        with ExitStack() as stack:
            if mend:
                held = stack.enter_context(lease(output, "verify"))
            else:
                check_free(output)
            for difference in differences(output, quick, checked):
                found.append(difference)
                say(str(difference))
            if mend:
                held.check()
                asked, removed = repair(output, found)
            else:
                # A run that began in the meantime makes differences of its own.
                check_free(output)
        say(
            f"{several(checked.videos, 'video')}, {several(checked.reels, 'reel')}, "
            f"{several(checked.files, 'file')} ({size(checked.bytes)}): {several(len(found), 'difference')}"
        )
        if found and mend:
            say(f"removed: {several(removed, 'file')}; the next run makes anew: {several(asked, 'video')}")
            for name in sorted({name for difference in found for _, name in difference.cuts}):
                say(f"removed from cuts: {name}; the `reelmap recut` or `reel` that made it makes it anew")
        elif found:
            say(advice(output, found))
        if report:
            storage.write_bytes(storage.absolute(report), facts(output, checked, found, quick, mend))
    except (storage.StorageError, Busy, Lost) as error:
        say(f"reelmap: {error}")
        return COULD_NOT_LOOK
    except KeyboardInterrupt:
        say("interrupted: what was not looked at may differ, too")
        return INTERRUPTED
    return SOME if found else NONE


def advice(output: str, found: list[Difference]) -> str:
    """What can be done about the differences, if it was not asked for before."""
    damaged = any(path.startswith("videos/") for difference in found for path in difference.remove)
    waiting = set() if damaged else again.asked(output)
    if all(difference.again and waiting.issuperset(difference.again) for difference in found):
        return "a repair has been asked for: the next run makes these videos anew"
    return "--repair removes what is of no use and has the next run make the rest anew"


def check_is_output(output: str) -> None:
    """Raises StorageError where no run has ever written: nothing there would differ from anything."""
    if not any(tables.list_parts(output, table) for table in schema.TABLES):
        raise storage.StorageError(f"there are no results of reelmap in {storage.shown(output)}")


def facts(output: str, checked: Checked, found: list[Difference], quick: bool, mended: bool) -> bytes:
    record = {
        "output": storage.shown(output),
        "quick": quick,
        "repaired": mended,
        "checked": vars(checked),
        "differences": [difference.facts() for difference in found],
    }
    return json.dumps(record, indent=1).encode()
