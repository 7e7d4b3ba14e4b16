"""A video as an earlier run left it: from its proxies and measures, not its source, to a row to be scored.

in   a row of rows.LISTED, whose video has proxies in the archive
out  a row of rows.GATHERED: features and thumbnails of the decoded proxies, the rest as it was stored
"""

from typing import Any

import numpy as np

from pipeline import tables
from pipeline.config import Settings
from pipeline.proxies import ProxyError, check_codec, frames_of, open_decoder, read_proxies, rgb
from pipeline.rows import FACTS
from stages.decode import thumbnail
from stages.failure import Failed
from stages.features import ExtractFeatures
from stages.nn.entropy import CodecError
from stages.nn.weights import Bundle

MEASURES = ("times_s", "cuts_s", "motion", "motion_std", "luma", "loudness_lufs")  # lists in `videos`


class Recall:
    def __init__(self, archive: str, settings: Settings, bundle: Bundle):
        self.archive, self.bundle, self.colour = archive, bundle, settings.decode.colour
        self.extract = ExtractFeatures(settings.features, bundle)
        self.decompress = open_decoder(bundle)
        self.newest = tables.current(archive)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Raises Failed for a video whose proxies or measures cannot be used."""
        (video,) = tables.read(self.archive, "videos", None, {row["video_id"]}, self.newest).to_pylist()
        if any(video[name] is None for name in MEASURES):
            raise Failed("its motion and loudness were not stored: it was processed by an older version")
        try:
            proxies = read_proxies(self.archive, video, self.newest)
            check_codec(proxies, self.bundle)
            if proxies.colour != self.colour:
                raise ProxyError(f"its proxies are {proxies.colour}: set decode.colour to {proxies.colour}")
            seen = [self.look(frames, video) for frames in frames_of(proxies, self.decompress)]
        except (ProxyError, CodecError) as error:
            raise Failed(str(error)) from error
        if len(proxies.codes) != len(video["times_s"]):
            raise Failed(f"{len(video['times_s'])} samples have {len(proxies.codes)} proxies")
        return row | {
            "probe": {name: video.get(name) for name in FACTS.names},
            "shards": len(video["shard_log"]),
            "times_s": np.array(video["times_s"], np.float64),
            "cuts_s": np.array(video["cuts_s"], np.float64),
            # Older tables know nothing of flashes and speech.
            "flashes_s": np.array(video["flashes_s"] or (), np.float64),
            "speech": np.array(video["speech"] or (), np.float32),
            "motion": np.array(video["motion"], np.float32),
            "motion_std": np.array(video["motion_std"], np.float32),
            "luma": np.array(video["luma"], np.float32),
            "loudness": np.array(video["loudness_lufs"], np.float32),
            "features": np.concatenate([features for features, _ in seen]),
            "thumbnails": [picture for _, pictures in seen for picture in pictures],
            "codes": [],
            "frames_decoded": video["frames"],
            "duration_s": video["duration_s"],
            "shard_log": video["shard_log"],
        }

    def look(self, frames: np.ndarray, video: dict[str, Any]) -> tuple[np.ndarray, list[bytes]]:
        aspect = video["width"] / video["height"]
        features = self.extract({"frames": frames})["features"]
        return features, [thumbnail(frame, aspect) for frame in rgb(frames, self.colour)]
