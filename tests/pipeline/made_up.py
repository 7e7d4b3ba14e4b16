"""Tables of made-up results in the shape that real runs have; no pixel of them is decoded."""

import math
import random
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from pipeline import schema
from pipeline.tables import part_name

WIDTH = 8
START = datetime(2026, 5, 1, 12, tzinfo=UTC)


def result(
    video_id: str,
    settings_key: str = "k1",
    minutes: int = 0,
    status: str = schema.OK,
    uri: str | None = None,
    clips: int = 6,
    width: int = WIDTH,
    thumbnails: list[bytes] | None = None,
    duration_s: float = 150.0,
) -> dict[str, list[dict]]:
    """The rows of one video in each table; `minutes` moves the time of publishing."""
    dice = random.Random(f"{video_id} {settings_key}")
    key = {"video_id": video_id, "settings_key": settings_key}
    at = START + timedelta(minutes=minutes)
    uri = uri or f"s3://library/{video_id}.mp4"
    video = key | {"uri": uri, "etag": "", "size_bytes": 123_456_789, "status": status, "published_at": at}
    if status != schema.OK:
        failure = {
            "uri": uri,
            "status": status,
            "stage": "decode",
            "failed_at": at,
            "trace": "Traceback: ...",
        }
        return {"videos": [video], "failures": [key | failure | {"reason": "the file ends after 3 of 12 s"}]}

    bounds = sorted([0.0, duration_s, *(dice.uniform(0, duration_s) for _ in range(clips - 1))])
    times = [number / 2 for number in range(int(duration_s * 2))]
    phase = dice.uniform(0, 6)
    importance = [
        min(1.0, max(0.0, 0.45 + 0.3 * math.sin(time / 11 + phase) + dice.gauss(0, 0.06))) for time in times
    ]
    clip_rows, edits, at_s = [], [], 0.0
    for number in range(clips):
        start, end = bounds[number], bounds[number + 1]
        mine = [score for time, score in zip(times, importance, strict=True) if start <= time < end] or [0.3]
        score = sum(mine) / len(mine)
        chosen = score > 0.5
        clip_rows.append(
            key
            | {
                "clip": number,
                "shot": number // 2,
                "start_s": start,
                "end_s": end,
                "score": score,
                "importance": score,
                "novelty": dice.random(),
                "motion": dice.random() / 4,
                "luma": 0.4,
                "loudness_lufs": dice.uniform(-40, -12),
                "rank": number + 1,
                "chosen": chosen,
                "why": "high importance" if chosen else "a clip that looks alike was taken",
                "embedding": [dice.gauss(0, 1) for _ in range(width)],
                "thumbnail": thumbnails[number % len(thumbnails)] if thumbnails else b"\xff\xd8\xff",
            }
        )
        if chosen:
            length = min(end - start, 5.0)
            effect = dice.choice(("cut", "cut", "burn")) if edits else "cut"
            overlap = min(0.5, length / 4) if effect != "cut" else 0.0
            overlap = min(overlap, at_s / 4)
            edits.append(
                {
                    "clip": number,
                    "source_start_s": start,
                    "source_end_s": start + length,
                    "reel_start_s": at_s - overlap,
                    "transition": effect,
                    "transition_s": overlap,
                    "sound_lead_s": dice.choice((0.0, 0.3, -0.2)) if effect == "cut" and edits else 0.0,
                }
            )
            at_s += length - overlap
    video |= {
        "container": "mov,mp4",
        "video_codec": "h264",
        "pixel_format": "yuv420p",
        "width": 1920,
        "height": 1080,
        "rotation": 0,
        "sample_aspect_ratio": "1:1",
        "fps": 29.97,
        "variable_rate": False,
        "duration_s": duration_s,
        "start_s": 0.0,
        "audio_codec": "aac",
        "audio_rate": 48000,
        "audio_channels": 2,
        "frames": int(duration_s * 30),
        "samples": len(times),
        "shots": clips // 2,
        "clips": clips,
        "chosen": len(edits),
        "times_s": times,
        "importance": importance,
        "speech": [dice.random() for _ in range(int(duration_s / 0.032))],
        "cuts_s": bounds[1:-1],
        "flashes_s": [duration_s / 3],
        "shard_log": [],
        "run_id": "run-1",
    }
    reel = key | {
        "uri": f"media/{video_id}/reel.mp4",
        "duration_s": at_s,
        "target_s": 30.0,
        "width": 1920,
        "height": 1080,
        "fps": 29.97,
        "encoder": "libx264",
        "loudness_lufs": -14.1,
        "true_peak_dbtp": -1.2,
        "size_bytes": 12_345_678,
        "sha256": "0" * 64,
        "edits": edits,
        "files": [f"media/{video_id}/poster.jpg", f"media/{video_id}/reel.otio"],
    }
    codes = [
        key | {"sample": number, "time_s": time, "kind": "vqvae", "codec_sha256": "c" * 64, "code": b"code"}
        for number, time in enumerate(times[:4])
    ]
    return {"videos": [video], "clips": clip_rows, "reels": [reel], "proxies": codes}


def tables(*results: dict[str, list[dict]], width: int = WIDTH) -> dict[str, pa.Table]:
    """One Arrow table per table name that has rows."""
    schemas = {
        "clips": schema.clips_schema(width),
        "proxies": schema.PROXIES,
        "reels": schema.REELS,
        "failures": schema.FAILURES,
        "videos": schema.VIDEOS,
    }
    return {
        name: pa.Table.from_pylist([row for rows in results for row in rows.get(name, [])], schema=fields)
        for name, fields in schemas.items()
    }


def part_of(made: dict[str, pa.Table]) -> str:
    return part_name(made["videos"]["video_id"].to_pylist(), made["videos"]["settings_key"][0].as_py())
