"""What stands in the tables of an OUTPUT beside one another and beside its media: every difference in words.

Nothing is changed here; `repair` does what the differences say. Of several results of a video only the
newest is looked at, as readers do; older ones are no difference, the next run clears them away.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pipeline import again, cuts, schema, storage, tables
from pipeline.ledger import Ledger, Result, read_ledger
from pipeline.publish import MEDIA
from pipeline.reels import Reel, examine_all
from pipeline.wording import several


@dataclass(frozen=True)
class Difference:
    path: str  # what it is about, below OUTPUT
    text: str  # what is wrong with it
    name: str = ""  # of the video, for people
    again: tuple[str, ...] = ()  # videos whose results have to be made anew
    remove: tuple[str, ...] = ()  # files below OUTPUT that are of no use
    cuts: tuple[tuple[str, str], ...] = ()  # cuts to be taken out, which `reelmap recut` makes anew

    def __str__(self) -> str:
        of = f" ({self.name})" if self.name else ""
        line = f"{storage.shown(self.path)}{of}: {self.text}"
        return line.encode(errors="replace").decode()  # a local name may be no text

    def facts(self) -> dict[str, Any]:
        return asdict(self)


_REEL = ("duration_s", "fps", "size_bytes", "sha256")
_CUT = ["name", "video_id", "status", "uri", "files", *_REEL]


@dataclass
class Checked:
    """How much was looked at, so that no difference means something."""

    videos: int = 0
    reels: int = 0
    files: int = 0
    bytes: int = 0


def differences(output: str, quick: bool, checked: Checked) -> Iterator[Difference]:
    """Looks at everything; `quick` leaves out the decoding of the reels. Only while nobody writes there.

    Raises StorageError when it cannot look.
    """
    ledger = read_ledger(output)
    checked.videos = len(ledger.results)
    broken: set[str] = set()
    for found in _tables(ledger):
        broken.update(found.again)
        yield found
    for path in storage.list_temporary(output):
        yield Difference(path, "a killed run left it unfinished", remove=(path,))
    media = {f"{MEDIA}/{path}": size for path, size in storage.walk(storage.join(output, MEDIA))}
    checked.files, checked.bytes = len(media), sum(media.values())
    yield from _cuts(output, ledger, media, quick, checked)
    sound = []
    for result in ledger.results.values():
        for reel in result.reels[:1]:
            yield from _missing(result, reel, media)
            if not _is_whole(result, reel):
                broken.add(result.video_id)
            elif reel["uri"] in media:
                sound.append(_reel(output, result, reel))
    checked.reels += len(sound)
    if not ledger.unknown:  # otherwise whose media these are cannot be said
        yield from _leftovers(ledger, media, broken)
    for reel, wrong in examine_all(sound, not quick):
        result = ledger.results[reel.video_id]
        path = result.reels[0]["uri"]
        for text in wrong:
            yield Difference(path, text, result.name, (reel.video_id,))


def repair(output: str, found: list[Difference]) -> tuple[int, int]:
    """Removes what is of no use and has the rest made anew by the next run; for the holder of the lease.

    Returns how many videos will be made anew and how many files were removed. After a kill half-way the same
    repair goes on: what is to be made anew is noted before anything goes.
    """
    videos = {video_id for difference in found for video_id in difference.again}
    files = sorted({path for difference in found for path in difference.remove})
    unread = [path for path in files if path.startswith("videos/")]
    for path in unread:  # while one of these is there, no results can be read at all
        storage.delete(storage.join(output, path))
    asked = again.ask(output, videos) if videos else 0
    for path in files:
        storage.delete(storage.join(output, path))
    cuts.drop(output, [key for difference in found for key in difference.cuts])
    cuts.Known(output).sweep()
    tables.sweep(output)
    storage.remove_empty_folders(storage.join(output, MEDIA))
    return asked, len(files)


def _cuts(
    output: str, ledger: Ledger, media: dict[str, int], quick: bool, checked: Checked
) -> Iterator[Difference]:
    """Differences of what was made from the tables; takes out of `media` what belongs to it."""
    if broken := cuts.damaged(output):
        yield from (Difference(path, "cannot be read as Parquet", remove=(path,)) for path in broken)
        # Whose these are cannot be said: media/VIDEO_ID/NAME/KEY/FILE.
        for path in [path for path in media if path.count("/") > 2]:
            del media[path]
        return
    sound: dict[str, tuple[Reel, cuts.Key, str, str]] = {}
    for row in cuts.read(output, _CUT).to_pylist():
        key = cuts.key_of(row)
        if row["video_id"] and row["video_id"] not in ledger.results and not ledger.unknown:
            yield Difference("/".join(("cuts", *key)), "is of a video that has no results", cuts=(key,))
        if row["status"] != schema.OK:
            continue
        name = f"{key[1]} of {ledger.results[key[0]].name}" if key[0] in ledger.results else key[1]
        files = cuts.files_of(row)
        missing = sorted(files - media.keys())
        yield from (Difference(path, "is missing", name, cuts=(key,)) for path in missing)
        known = all(row[fact] for fact in ("duration_s", "fps", "size_bytes"))
        if row["uri"] not in files or not known:
            text = (
                f"does not say where its reel lies below {cuts.folder_of(*key)}, or how long and large it is"
            )
            yield Difference("/".join(("cuts", *key)), text, name, cuts=(key,))
        elif row["uri"] in media:
            reel = Reel(key[0], storage.join(output, row["uri"]), *(row[fact] for fact in _REEL))
            sound[reel.uri] = reel, key, name, row["uri"]
        for path in files:
            media.pop(path, None)
    checked.reels += len(sound)
    for reel, wrong in examine_all([reel for reel, *_ in sound.values()], not quick):
        _, key, name, path = sound[reel.uri]
        yield from (Difference(path, text, name, cuts=(key,)) for text in wrong)


def _tables(ledger: Ledger) -> Iterator[Difference]:
    for path, part in ledger.damaged.items():
        yield Difference(
            path, "cannot be read as Parquet", again=tuple(ledger.videos_of(part)), remove=(path,)
        )
    for path in ledger.orphans:
        yield Difference(path, "has no twin in videos: a killed run left it", remove=(path,))
    for path, part, video_id in ledger.strays:
        text = f"holds rows of {video_id}, which has no row in videos/{part}.parquet"
        yield Difference(path, text, again=tuple(ledger.videos_of(part)))
    for result in ledger.results.values():
        for text in _result(result, ledger):
            yield Difference(f"videos/{result.part}.parquet", text, result.name, (result.video_id,))


def _result(result: Result, ledger: Ledger) -> Iterator[str]:
    """What the tables say of one video, where it does not fit together."""
    rows = result.rows
    if result.copies > 1:
        yield f"the video stands in it {result.copies} times"
    if result.status != schema.OK:
        if rows["failures"] != 1:
            yield f"the video is {result.status} and has {rows['failures']} rows in failures instead of 1"
        elif result.failure != result.status:
            yield f"the video is {result.status}, and {result.failure} in failures"
        for name in ("clips", "proxies", "reels"):
            if rows[name]:
                yield f"the video is {result.status} and has {rows[name]} rows in {name}"
        return
    if rows["failures"]:
        yield f"the video is ok and has {rows['failures']} rows in failures"
    counts = (
        ("clips", result.clips),
        ("proxies", ledger.proxies_of(result)),
        ("reels", int(ledger.has_reels(result.settings_key))),
    )
    for name, said in counts:
        if f"{name}/{result.part}.parquet" in ledger.damaged:
            continue  # which was said
        if said is not None and rows[name] != said:
            yield f"the video should have {said} rows in {name} and has {rows[name]}"
        elif name != "reels" and result.distinct[name] != rows[name]:
            yield f"rows of the video stand twice in {name}"
    if result.chosen is not None and rows["clips"] == result.clips and result.chosen_rows != result.chosen:
        yield f"the video should have {result.chosen} chosen clips and has {result.chosen_rows}"


def _missing(result: Result, reel: dict[str, Any], media: dict[str, int]) -> Iterator[Difference]:
    where = f"reels/{result.part}.parquet"
    if not _is_whole(result, reel):
        text = (
            f"does not say where its reel lies below {MEDIA}/{result.video_id}, or how long and large it is"
        )
        yield Difference(where, text, result.name, (result.video_id,))
    for path in filter(None, (reel["uri"], *(reel["files"] or ()))):
        if not _is_named_well(result, path):
            text = f"names {path!r}, which is no file below {MEDIA}/{result.video_id}"
            yield Difference(where, text, result.name, (result.video_id,))
        elif path not in media:
            yield Difference(path, "is missing", result.name, (result.video_id,))


def _is_whole(result: Result, reel: dict[str, Any]) -> bool:
    known = all(reel[name] is not None for name in ("uri", "duration_s", "size_bytes"))
    return known and bool(reel["fps"]) and _is_named_well(result, reel["uri"])


def _is_named_well(result: Result, path: str) -> bool:
    return path.startswith(f"{MEDIA}/{result.video_id}/") and _is_safe(path)


def _is_safe(path: str) -> bool:
    """Keys of a store may be anything, such as `a//..`: what we would not write we do not touch."""
    try:
        storage.join(MEDIA, path)
    except ValueError:
        return False
    return True


def _leftovers(ledger: Ledger, media: dict[str, int], broken: set[str]) -> Iterator[Difference]:
    folders: dict[str, list[str]] = {}
    for path in media:
        if not path.rsplit("/", 1)[-1].startswith(storage.TEMPORARY):
            folders.setdefault(path.split("/")[1], []).append(path)
    for folder, paths in sorted(folders.items()):
        result = ledger.results.get(folder)
        if folder in broken:
            continue  # its rows cannot say what belongs to it
        if result is None or not result.reels:
            text = f"{several(len(paths), 'file')} of no current reel"
            yield Difference(f"{MEDIA}/{folder}", text, remove=tuple(filter(_is_safe, paths)))
            continue
        named = {result.reels[0]["uri"], *(result.reels[0].get("files") or ())}
        for path in paths:
            if path not in named:
                yield Difference(path, "no row names it", result.name, remove=tuple(filter(_is_safe, [path])))


def _reel(output: str, result: Result, row: dict[str, Any]) -> Reel:
    return Reel(
        result.video_id,
        storage.join(output, row["uri"]),
        row["duration_s"],
        row["fps"],
        row["size_bytes"],
        row["sha256"],
    )
