"""The videos of an OUTPUT that can be scored again from their proxies: see pipeline/recall.py."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema, storage, tables
from pipeline.library import LibraryError, LibrarySettings, passing
from pipeline.rows import LISTED
from stages.nn.weights import Bundle


def list_archive(archive: str, settings: LibrarySettings, bundle: Bundle) -> pa.Table:
    """The videos of an OUTPUT that can be scored again, as `list_library` would list them.

    Raises LibraryError if there is none.
    """
    newest = tables.current(archive)
    newest = newest.filter(pc.equal(newest["status"], schema.OK))
    if not len(newest):
        raise LibraryError(f"there are no results of reelmap in {storage.shown(archive)}")
    codecs = tables.read(archive, "proxies", ["video_id", "codec_sha256"], newest=newest)
    if not len(codecs):
        raise LibraryError(f"no proxies are stored in {storage.shown(archive)}: codec.kind was none")
    made_by = bundle.card("codec")["sha256"]
    if made_by not in codecs["codec_sha256"].unique().to_pylist():
        raise LibraryError(
            f"the proxies in {storage.shown(archive)} were made by another codec than that of {bundle.uri}: "
            "give the bundle that made them with --bundle, or one trained with --from it"
        )
    ids = set(codecs["video_id"].unique().to_pylist())
    columns = [name for name in LISTED.names if name in schema.VIDEOS.names]
    found = tables.read(archive, "videos", columns, ids, newest).sort_by("uri")
    chosen = list(map(passing(settings, of_uris=True), found["uri"].to_pylist()))
    return found.filter(pa.array(chosen, pa.bool_())).slice(0, settings.limit)
