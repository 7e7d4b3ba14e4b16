"""Takes videos out of an OUTPUT: media, report page, rows.

The rows go last: after a kill half-way they still say what there is to be forgotten.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from pipeline import cuts, storage, tables
from pipeline.publish import MEDIA
from pipeline.report import REPORT

_THREADS = 16


def forget(output: str, video_ids: Iterable[str]) -> int:
    """Only for the holder of the OUTPUT's lease; returns how many videos went."""
    video_ids = set(video_ids)
    if not video_ids:
        return 0

    def files_of(video_id: str) -> list[str]:
        folder = storage.join(output, MEDIA, video_id)
        pages = [storage.join(output, REPORT, f"{video_id}.html")]
        return [f"{folder}/{path}" for path, _ in storage.walk(folder)] + pages

    with ThreadPoolExecutor(_THREADS) as pool:
        for files in pool.map(files_of, sorted(video_ids)):
            for _ in pool.map(storage.delete, files):
                pass
    storage.remove_empty_folders(storage.join(output, MEDIA))
    cuts.remove(output, video_ids)
    tables.remove(output, video_ids)
    return len(video_ids)
