"""`reelmap verify OUTPUT [--quick] [--repair]`: do tables and media say the same? One line per difference."""

import json
from collections.abc import Callable
from contextlib import ExitStack

from pipeline import schema, storage, tables
from pipeline.lease import Busy, Lost, check_free, lease
from pipeline.verify import Checked, Difference, differences, repair
from pipeline.wording import size

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
            f"{checked.videos} videos, {checked.reels} reels, {checked.files} files "
            f"({size(checked.bytes)}): {len(found) or 'no'} differences"
        )
        if found and mend:
            say(f"{removed} files removed, {asked} videos will be made anew by the next `reelmap highlights`")
        elif found:
            say("--repair removes what is of no use and has the next run make the rest anew")
        if report:
            storage.write_bytes(storage.absolute(report), facts(output, checked, found, quick, mend))
    except (storage.StorageError, Busy, Lost) as error:
        say(f"reelmap: {error}")
        return COULD_NOT_LOOK
    except KeyboardInterrupt:
        say("interrupted: what was not looked at may differ, too")
        return INTERRUPTED
    return SOME if found else NONE


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
