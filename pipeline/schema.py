"""Every table that reelmap writes, with the units in the field metadata.

Seconds are measured from the start of the presentation. (video_id, settings_key) is the key of a
video's result and stands in every table; `clips`, `proxies`, `reels` and `failures` join `videos` on it.
"""

import pyarrow as pa

TABLES = ("clips", "proxies", "reels", "failures", "videos")  # in the order of writing: videos last

OK, DROPPED, FAILED = "ok", "dropped", "failed"


def _field(name: str, type: pa.DataType, unit: str | None = None, doc: str = "") -> pa.Field:
    metadata = {key: text for key, text in (("unit", unit), ("doc", doc)) if text}
    return pa.field(name, type, metadata=metadata or None)


TIMESTAMP = pa.timestamp("us", tz="UTC")

KEY = [
    _field("video_id", pa.string(), doc="hash of uri, etag or mtime, and size"),
    _field("settings_key", pa.string(), doc="hash of every setting and weight that changes the result"),
]

SHARD_LOG = pa.struct(
    [
        _field("shard", pa.int32()),
        _field("start_s", pa.float64(), "s"),
        _field("end_s", pa.float64(), "s"),
        _field("frames", pa.int32(), doc="frames decoded"),
        _field("decode_started_at", TIMESTAMP),
        _field("decode_finished_at", TIMESTAMP),
        _field("worker", pa.string(), doc="host and process"),
    ]
)

VIDEOS = pa.schema(
    [
        *KEY,
        _field("uri", pa.string()),
        _field("etag", pa.string()),
        _field("size_bytes", pa.int64(), "bytes"),
        _field("modified_at", TIMESTAMP),
        _field("status", pa.string(), doc="ok, dropped or failed"),
        _field("container", pa.string()),
        _field("video_codec", pa.string()),
        _field("pixel_format", pa.string()),
        _field("coded_width", pa.int32(), "pixels"),
        _field("coded_height", pa.int32(), "pixels"),
        _field("width", pa.int32(), "pixels", "as displayed: after rotation, square pixels"),
        _field("height", pa.int32(), "pixels", "as displayed"),
        _field("rotation", pa.int32(), "degrees", "clockwise, to be applied for display"),
        _field("sample_aspect_ratio", pa.string()),
        _field("fps", pa.float64(), "frames/s", "nominal"),
        _field("fps_exact", pa.string(), doc="the same as a fraction"),
        _field("variable_rate", pa.bool_()),
        _field("interlaced", pa.bool_()),
        _field("color_primaries", pa.int32(), doc="ITU-T H.273"),
        _field("color_transfer", pa.int32(), doc="ITU-T H.273"),
        _field("color_space", pa.int32(), doc="ITU-T H.273"),
        _field("color_range", pa.int32(), doc="1 limited, 2 full"),
        _field("duration_s", pa.float64(), "s"),
        _field("duration_exact", pa.bool_(), doc="as the header says it of the pictures"),
        _field("start_s", pa.float64(), "s", "start of the presentation on the stream clock"),
        _field("audio_codec", pa.string()),
        _field("audio_rate", pa.int32(), "Hz"),
        _field("audio_channels", pa.int32()),
        _field("timecode", pa.string(), doc="of the first picture, as the camera wrote it; null without"),
        _field("frames", pa.int32(), doc="frames decoded"),
        _field("samples", pa.int32(), doc="frames sampled"),
        _field("shots", pa.int32()),
        _field("clips", pa.int32()),
        _field("chosen", pa.int32(), doc="clips in the reel"),
        _field("times_s", pa.list_(pa.float64()), "s", "time of each sample"),
        _field("importance", pa.list_(pa.float32()), "1", "score of each sample, 0 to 1"),
        _field("motion", pa.list_(pa.float32()), "1", "of each sample; see clips"),
        _field("motion_std", pa.list_(pa.float32()), "1", "how unevenly each sample moves"),
        _field("luma", pa.list_(pa.float32()), "1", "mean of each sample, 0 to 1"),
        _field("loudness_lufs", pa.list_(pa.float32()), "LUFS", "per half second; empty without audio"),
        _field(
            "speech",
            pa.list_(pa.float32()),
            "1",
            "probability of a voice per 0.032 s, from 0 s on; empty without audio",
        ),
        _field("cuts_s", pa.list_(pa.float64()), "s", "first frame of each shot but the first"),
        _field("flashes_s", pa.list_(pa.float64()), "s", "frames of camera flashes and strobes"),
        _field("shard_log", pa.list_(SHARD_LOG)),
        _field("run_id", pa.string()),
        _field("published_at", TIMESTAMP),
    ]
)


def clips_schema(width: int) -> pa.Schema:
    """The clip table; `width` is that of the embedding."""
    return pa.schema(
        [
            *KEY,
            _field("clip", pa.int32(), doc="number of the clip in its video, in time order"),
            _field("shot", pa.int32()),
            _field("start_s", pa.float64(), "s", "first frame"),
            _field("end_s", pa.float64(), "s", "first frame after"),
            _field("score", pa.float32(), "1", "0 to 1; what the reel is chosen by"),
            _field("importance", pa.float32(), "1", "learned, mean over the clip"),
            _field("novelty", pa.float32(), "1", "how unlike the rest of the video, 0 to 1"),
            _field(
                "motion",
                pa.float32(),
                "1",
                "luma change in 0.1 s, in the tenth of the picture that moves most",
            ),
            _field("luma", pa.float32(), "1", "mean, 0 to 1"),
            _field("loudness_lufs", pa.float32(), "LUFS", "momentary, mean; null without audio"),
            _field("rank", pa.int32(), doc="of the score among the clips of its video; 1 is the highest"),
            _field("chosen", pa.bool_()),
            _field("why", pa.string(), doc="why it was chosen or not, in words"),
            _field("embedding", pa.list_(pa.float32(), width), doc="mean feature, unit length"),
            _field("thumbnail", pa.binary(), doc="JPEG of the clip's most important sample"),
            _field("thumbnail_s", pa.float64(), "s", "time of the thumbnail"),
            _field(
                "saliency",
                pa.binary(),
                doc="JPEG: the thumbnail in grey, glowing where it raised the score; null if not chosen",
            ),
        ]
    )


PROXIES = pa.schema(
    [
        *KEY,
        _field("sample", pa.int32()),
        _field("time_s", pa.float64(), "s"),
        _field("kind", pa.string(), doc="codec that reads the code"),
        _field("codec_sha256", pa.string(), doc="weights that read the code"),
        _field("code", pa.binary(), doc="autoencoder code of the sampled frame"),
    ]
)

EDIT = pa.struct(
    [
        _field("clip", pa.int32()),
        _field("source_start_s", pa.float64(), "s"),
        _field("source_end_s", pa.float64(), "s"),
        _field("reel_start_s", pa.float64(), "s"),
        _field("transition", pa.string(), doc="into this clip: an effect's name or cut"),
        _field("transition_s", pa.float64(), "s", "overlap with the clip before"),
        _field(
            "sound_lead_s",
            pa.float64(),
            "s",
            "its sound comes so long before its picture (J cut); below 0, the sound before trails (L cut)",
        ),
    ]
)

REELS = pa.schema(
    [
        *KEY,
        _field("uri", pa.string(), doc="relative to OUTPUT"),
        _field("duration_s", pa.float64(), "s"),
        _field("target_s", pa.float64(), "s"),
        _field("width", pa.int32(), "pixels"),
        _field("height", pa.int32(), "pixels"),
        _field("fps", pa.float64(), "frames/s"),
        _field("encoder", pa.string(), doc="the video encoder that was used"),
        _field("copied_s", pa.float64(), "s", "of the reel, whose pictures are the source's own"),
        _field("not_copied", pa.string(), doc="why nothing could be copied, where it was asked for"),
        _field("loudness_lufs", pa.float32(), "LUFS", "integrated; null without audio"),
        _field("true_peak_dbtp", pa.float32(), "dBTP"),
        _field("size_bytes", pa.int64(), "bytes"),
        _field("sha256", pa.string()),
        _field("edits", pa.list_(EDIT)),
        _field("files", pa.list_(pa.string()), doc="what else lies beside it, relative to OUTPUT"),
    ]
)

CUT_EDIT = pa.struct(
    [
        _field("video_id", pa.string()),
        _field("uri", pa.string(), doc="of the source"),
        *EDIT.fields,
    ]
)

# Reels that were made from the tables: of one video under a name, or over many videos. Not part of a run:
# their parts have no twins in `videos`.
CUTS = pa.schema(
    [
        _field("name", pa.string()),
        _field("video_id", pa.string(), doc="null: a reel over many videos"),
        _field("settings_key", pa.string(), doc="hash of every setting and weight that changes the cut"),
        _field(
            "made_from", pa.string(), doc="settings_key of the video's result, or a hash of those of many"
        ),
        _field("status", pa.string(), doc="ok or failed"),
        _field("stage", pa.string(), doc="where it failed"),
        _field("reason", pa.string(), doc="why it failed; of a reel over many videos, what was left out"),
        *(field for field in REELS if field.name not in ("video_id", "settings_key", "edits", "files")),
        _field("edits", pa.list_(CUT_EDIT), doc="clip: of the table clips, the one that is on show"),
        _field("files", pa.list_(pa.string()), doc="what else lies beside it, relative to OUTPUT"),
        _field("read_bytes", pa.int64(), "bytes", "of the sources, to make it"),
        _field("source_bytes", pa.int64(), "bytes", "of the sources as a whole"),
        _field("made_at", TIMESTAMP),
    ]
)

FAILURES = pa.schema(
    [
        *KEY,
        _field("uri", pa.string()),
        _field("status", pa.string(), doc="failed or dropped"),
        _field("stage", pa.string()),
        _field("reason", pa.string()),
        _field("trace", pa.string()),
        _field("failed_at", TIMESTAMP),
    ]
)
