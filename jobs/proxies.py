"""`reelmap proxies OUTPUT VIDEO --out DIR|FILE.mp4`: what is stored of a video, as pictures.

DIR        one PNG per sampled frame, named by its presentation time in seconds: 000012.500000.png
FILE.mp4   the same frames as a film with their own times, to the microsecond

Proxies are squashed to a square; PNGs come out in the shape of the video, with the height of the proxy (the
MP4 keeps the pixels and says their shape).
"""

import io
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image

from jobs.models import open_models
from pipeline import storage
from pipeline.proxies import ProxyError, check_codec, frames_of, open_decoder, read_proxies, rgb
from pipeline.videos import VideoError, Videos
from stages.nn.entropy import CodecError
from stages.nn.weights import BundleError

TICK = Fraction(1, 1_000_000)
DONE, COULD_NOT = 0, 2

Frames = Iterator[tuple[float, np.ndarray]]  # seconds, uint8 [H, W, 3]


def proxies(
    output: str, video: str, out: str, bundle_uri: str | None, square: bool, say: Callable[[str], None]
) -> int:
    """Exit code: 0 all frames are written, 2 not."""
    output, out = storage.absolute(output), storage.absolute(out)
    try:
        bundle = open_models(bundle_uri)
        stored = read_proxies(output, Videos(output).find(video))
        check_codec(stored, bundle)
        decoded = (rgb(part, stored.colour) for part in frames_of(stored, open_decoder(bundle)))
        frames = zip(stored.times_s.tolist(), (frame for part in decoded for frame in part), strict=True)
        shape = stored.video["width"], stored.video["height"]
        if out.lower().endswith(".mp4"):
            write_mp4(frames, shape, out)
        else:
            write_pngs(frames, None if square else shape, out)
    except (ProxyError, VideoError, BundleError, CodecError, storage.StorageError) as error:
        say(f"reelmap: {error}")
        return COULD_NOT
    span = f"{stored.times_s[0]:.1f} s to {stored.times_s[-1]:.1f} s"
    say(f"{len(stored.codes)} frames, {span}, from {stored.size_bytes / 1e3:.0f} kB: {storage.shown(out)}")
    return DONE


def write_pngs(frames: Frames, shape: tuple[int, int] | None, folder: str) -> None:
    for time_s, frame in frames:
        if shape:
            height = frame.shape[0]
            width = max(1, round(height * shape[0] / shape[1]))
            frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LANCZOS4)
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "PNG")
        storage.write_bytes(storage.join(folder, f"{time_s:013.6f}.png"), file.getvalue())


def write_mp4(frames: Frames, shape: tuple[int, int], out: str) -> None:
    """H.264 close to what was decoded, one frame at each time."""
    with tempfile.TemporaryDirectory(prefix="reelmap-") as folder:
        path = Path(folder) / "proxies.mp4"
        with av.open(str(path), "w", options={"movflags": "+faststart"}) as file:
            stream = file.add_stream("libx264", options={"crf": "12", "preset": "veryfast"})
            context = stream.codec_context
            # Without B-frames no frame has to be moved in time to be decoded before it is shown.
            context.pix_fmt, context.max_b_frames = "yuv420p", 0
            stream.time_base = context.time_base = TICK
            for i, (time_s, pixels) in enumerate(frames):
                if i == 0:
                    context.height, context.width = pixels.shape[:2]
                    # Of one pixel: the square is stretched to the shape of the video.
                    context.sample_aspect_ratio = Fraction(*shape) * Fraction(context.height, context.width)
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                frame.pts, frame.time_base = round(time_s / TICK), TICK
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
        storage.put_file(path, out)
