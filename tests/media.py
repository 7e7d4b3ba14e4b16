"""Builds every video that a test needs: small, quick, and checkable by a machine.

Each frame carries its number as a strip of black and white cells along the top (white, black, 13 bits,
parity), the first frame of each second a white square in the lower left corner, and the sound a 1 kHz
beep that begins with that frame. The cells are shares of the picture, so they survive scaling.

    facts = make_video(tmp_path / "a.mp4", seconds=6, fps=29.97, shots=3)
    read_counter(frame) == 42; facts.times_s[42]; facts.cuts_s
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from scipy import signal

CELLS = 16
BITS = 13  # frames 0..8191
STRIP = 1 / 6  # of the height
FLASH = 1 / 6  # of the height and of the width
BEEP_HZ, BEEP_S = 1000.0, 0.05
CODECS = {
    ".mp4": ("libx264", "aac"),
    ".mov": ("libx264", "aac"),
    ".mkv": ("libx264", "aac"),
    ".ts": ("libx264", "aac"),
    ".webm": ("libvpx-vp9", "libopus"),
    ".avi": ("mpeg4", "libmp3lame"),
    ".vob": ("mpeg2video", "mp2"),  # an MPEG-2 program stream
}
FAST = {
    "libx264": {"preset": "veryfast", "crf": "16"},
    "libx265": {"preset": "ultrafast", "crf": "16", "x265-params": "log-level=none"},
    "libsvtav1": {"preset": "12", "crf": "20", "svtav1-params": "lookahead=0"},
    "prores_ks": {"profile": "0"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "0"},
}


@dataclass(frozen=True)
class Shot:
    """One look, held for `seconds`; `speed` is picture widths per second of camera movement."""

    seconds: float
    look: int = 0
    speed: float = 0.2


@dataclass(frozen=True)
class MediaFacts:
    """What is in a file that `make_video` wrote. Frame n carries the number n."""

    path: Path
    times_s: np.ndarray  # [N] from the start of the presentation, as the file says
    fps: Fraction
    width: int  # as displayed
    height: int
    cuts: tuple[int, ...]  # first frame of each shot but the first
    flashes: tuple[int, ...]  # frames with a flash, where the beeps begin
    duration_s: float  # end of the last frame
    start_s: float  # start of the presentation on the stream clock
    audio: bool
    first: int = 0  # number of the first frame on show

    @property
    def uri(self) -> str:
        return str(self.path)

    @property
    def cuts_s(self) -> np.ndarray:
        return self.times_s[list(self.cuts)]

    @property
    def beeps_s(self) -> np.ndarray:
        return self.times_s[list(self.flashes)]


def make_video(
    path: Path,
    *,
    seconds: float = 4.0,
    fps: float | Fraction = 25,
    size: tuple[int, int] = (160, 90),
    shots: int | Sequence[Shot] = 1,
    audio: str | np.ndarray | None = "beeps",
    codec: str | None = None,
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    gop: int = 25,
    b_frames: int = 2,
    vfr: bool = False,
    rotation: int = 0,
    sample_aspect_ratio: tuple[int, int] = (1, 1),
    start_s: float = 0.0,
    audio_rate: int = 48000,
    audio_channels: int = 2,
    audio_start_s: float = 0.0,
    lit: Sequence[int] = (),
) -> MediaFacts:
    """Write one video; what the suffix of `path` says decides the container and the codecs.

    size                 (width, height) as coded and, but for rotation, as displayed with square pixels
    shots                so many equal shots of different looks, or a list (its length replaces `seconds`)
    audio                "beeps", "hissing" (beeps in noise), "silence", "noise", samples f32 [n, channels],
                         or None for no audio stream
    vfr                  irregular times: frames last 0.5 to 1.5 of the nominal time, and one a whole second
    rotation             clockwise degrees a player has to turn the coded picture (it is coded turned back)
    start_s              where the clock of the streams starts
    audio_start_s        audio begins so much later than the video
    lit                  frames under a camera flash, which leaves the counter as it is
    """
    fps = rational(fps)
    if isinstance(shots, int):
        shots = [Shot(seconds / shots, look) for look in range(shots)]
    seconds = sum(shot.seconds for shot in shots)
    count = max(1, round(seconds * fps))
    times = frame_times(count, fps, vfr)
    if vfr:
        count = max(1, int(np.searchsorted(times, seconds)))
        times = times[:count]
    ends = np.cumsum([shot.seconds for shot in shots])
    shot_of = np.minimum(np.searchsorted(ends, times + 1e-6, side="right"), len(shots) - 1)
    cuts = tuple(int(n) for n in np.flatnonzero(np.diff(shot_of)) + 1)
    flashes = second_starts(times)

    video_codec, audio_codec = CODECS[path.suffix]
    video_codec = codec or video_codec
    clock = Fraction(1, 90000) if vfr or start_s else 1 / fps
    tilted = rotation % 180 != 0
    display = (size[1], size[0]) if tilted else size
    # Sides that are even where the format needs it are the caller's business: odd sizes are a test.
    with av.open(str(path), "w") as output:
        video = output.add_stream(
            video_codec, rate=fps, options=dict(FAST.get(video_codec, {})) | (options or {})
        )
        video.width, video.height, video.pix_fmt = *size, pixel_format
        video.codec_context.time_base = clock
        video.codec_context.gop_size = gop
        video.codec_context.max_b_frames = b_frames if video_codec in ("libx264", "libx265", "mpeg4") else 0
        video.codec_context.sample_aspect_ratio = Fraction(*sample_aspect_ratio)
        if rotation:
            video.set_display_rotation(-rotation)  # libav counts counter-clockwise
        sound = None
        if audio is not None:
            sound = output.add_stream(audio_codec, rate=audio_rate)
            sound.layout = {1: "mono", 2: "stereo", 6: "5.1"}[audio_channels]
            samples = (
                audio
                if isinstance(audio, np.ndarray)
                else synthesise(
                    audio, seconds, times[list(flashes)] - audio_start_s, audio_rate, audio_channels
                )
            )
            feed = _audio_frames(samples, audio_rate, sound.layout.name, start_s + audio_start_s)
        textures = {(shot.look, display): texture(shot.look, *display) for shot in shots}
        for n, (time, shot) in enumerate(zip(times, shot_of, strict=True)):
            look = shots[shot]
            picture = draw(textures[look.look, display], display, time * look.speed)
            if n in lit:
                picture = np.maximum(picture, 240)
            stamp(picture, n, n in flashes)
            turned = np.rot90(picture, rotation // 90)  # counter-clockwise: turned back
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(turned), format="rgb24")
            frame = frame.reformat(format=pixel_format)
            frame.time_base = clock
            frame.pts = round((Fraction(float(time)) + Fraction(start_s)) / clock)
            output.mux(video.encode(frame))
            if sound:
                _mux_until(output, sound, feed, start_s + time)
        output.mux(video.encode(None))
        if sound:
            _mux_until(output, sound, feed, np.inf)
            output.mux(sound.encode(None))
    file_times, origin = presentation_times(path)
    return MediaFacts(
        path=path,
        times_s=file_times,
        fps=fps,
        width=round(display[0] * (1 if tilted else sample_aspect_ratio[0] / sample_aspect_ratio[1])),
        height=round(display[1] * (sample_aspect_ratio[0] / sample_aspect_ratio[1] if tilted else 1)),
        cuts=cuts,
        flashes=flashes,
        duration_s=float(file_times[-1] + 1 / fps),
        start_s=origin,
        audio=audio is not None,
    )


def rational(fps: float | Fraction) -> Fraction:
    """23.976 -> 24000/1001 and so on; other numbers as they are."""
    if isinstance(fps, Fraction):
        return fps
    ntsc = Fraction(round(fps * 1.001) * 1000, 1001)
    return ntsc if abs(float(ntsc) - fps) < 0.005 else Fraction(fps).limit_denominator(1000)


def frame_times(count: int, fps: Fraction, vfr: bool) -> np.ndarray:
    """Nominal presentation times f64[count] in seconds."""
    if not vfr:
        return np.array([float(n / fps) for n in range(count)])
    lengths = np.random.default_rng(7).uniform(0.5, 1.5, count) / float(fps)
    if count > 20:
        lengths[count // 3] = 1.0  # nothing new for a second, as a screen recorder writes it
    times = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    return np.round(times * 1000) / 1000  # what a Matroska clock can hold


def second_starts(times: np.ndarray) -> tuple[int, ...]:
    """The first frame of each second; where frames are held that long, beeps would run together."""
    found = [0]
    for n in np.flatnonzero(np.diff(np.floor(times + 1e-6))) + 1:
        if times[n] - times[found[-1]] > 0.4:
            found.append(int(n))
    return tuple(found)


def presentation_times(path: Path) -> tuple[np.ndarray, float]:
    """Times of all frames from the start of the presentation, and that start, from the packets."""
    with av.open(str(path)) as file:
        origin = Fraction(file.start_time or 0, av.time_base)
        stream = file.streams.video[0]
        times = sorted(p.pts * p.time_base for p in file.demux(stream) if p.pts is not None and p.size)
    return np.array([float(time - origin) for time in times]), float(origin)


def texture(look: int, width: int, height: int) -> np.ndarray:
    """A picture u8[2H, 2W, 3] to move a window over; looks differ in colour, scale and pattern."""
    rng = np.random.default_rng(1000 + look)
    y, x = np.mgrid[0 : 2 * height, 0 : 2 * width].astype(np.float32)
    base = rng.uniform(40, 215, 3)
    second = (base + rng.uniform(90, 160, 3)) % 256
    wave = rng.uniform(2, 9) * 2 * np.pi / width
    angle = rng.uniform(0, np.pi)
    mix = 0.5 + 0.5 * np.sin(wave * (np.cos(angle) * x + np.sin(angle) * y))
    if look % 2:
        mix = (mix > 0.5).astype(np.float32)
    cell = max(2, height // 10)
    noise = rng.normal(0, 14, (2 * height // cell + 1, 2 * width // cell + 1))
    noise = noise.repeat(cell, 0).repeat(cell, 1)[: 2 * height, : 2 * width]
    picture = base + mix[..., None] * (second - base) + noise[..., None]
    return np.clip(picture, 0, 255).astype(np.uint8)


def draw(canvas: np.ndarray, size: tuple[int, int], travel: float) -> np.ndarray:
    """The window u8[H, W, 3] of `canvas` after `travel` picture widths, there and back."""
    width, height = size
    phase = 1 - abs(travel % 2 - 1)
    x, y = round(phase * width), round(phase * height * 0.5)
    return canvas[y : y + height, x : x + width].copy()


def stamp(picture: np.ndarray, number: int, flash: bool) -> None:
    """Burn the number (and the flash) into a picture u8[H, W, 3], in place."""
    height, width = picture.shape[:2]
    bits = [number >> k & 1 for k in range(BITS)]
    edges = np.round(np.linspace(0, width, CELLS + 1)).astype(int)
    for cell, bit in enumerate([1, 0, *bits, sum(bits) % 2]):
        picture[: round(height * STRIP), edges[cell] : edges[cell + 1]] = 235 if bit else 20
    if flash:
        picture[-round(height * FLASH) :, : round(width * FLASH)] = 250
    else:
        picture[-round(height * FLASH) :, : round(width * FLASH)] = 5


def read_counter(frame: np.ndarray) -> int:
    """The number burnt into a picture u8[H, W, 3] or [H, W] of any size.

    Raises ValueError where there is none to read, as in the middle of a transition.
    """
    grey = frame.mean(axis=2) if frame.ndim == 3 else frame.astype(np.float64)
    height, width = grey.shape
    rows = grey[round(height * STRIP * 0.3) : max(1, round(height * STRIP * 0.7))]
    edges = np.linspace(0, width, CELLS + 1)
    third = width / CELLS / 3
    levels = np.array(
        [
            rows[:, round(a + third) : max(round(a + third) + 1, round(b - third))].mean()
            for a, b in itertools.pairwise(edges)
        ]
    )
    white, black = levels[:2]
    share = (levels - black) / max(white - black, 1e-6)
    if white - black < 60 or np.any((share > 0.35) & (share < 0.65)):
        raise ValueError(f"no counter to read in this picture: {levels.round().astype(int).tolist()}")
    bits = [int(bit) for bit in share > 0.5]
    if sum(bits[2 : 2 + BITS]) % 2 != bits[2 + BITS]:
        raise ValueError(f"the counter's parity is wrong: {bits}")
    return sum(bit << k for k, bit in enumerate(bits[2 : 2 + BITS]))


def read_flash(frame: np.ndarray) -> bool:
    """Whether the picture u8[H, W, 3] carries the flash."""
    height, width = frame.shape[:2]
    corner = frame[-max(1, round(height * FLASH * 0.6)) :, : max(1, round(width * FLASH * 0.6))]
    return bool(corner.mean() > 128)


def synthesise(kind: str, seconds: float, beeps_s: np.ndarray, rate: int, channels: int) -> np.ndarray:
    """Samples f32[n, channels]: beeps over a faint hiss or a loud one, noise, or silence."""
    count = round(seconds * rate)
    if kind == "silence":
        return np.zeros((count, channels), np.float32)
    rng = np.random.default_rng(3)
    if kind == "noise":
        return (0.1 * rng.standard_normal((count, 1)) * np.ones((1, channels))).astype(np.float32)
    mono = (0.02 if kind == "hissing" else 0.002) * rng.standard_normal(count)
    t = np.arange(round(BEEP_S * rate)) / rate
    tone = 0.5 * np.sin(2 * np.pi * BEEP_HZ * t)
    for beep in beeps_s:
        first = round(beep * rate)
        if first >= 0:
            last = min(count, first + len(tone))
            mono[first:last] += tone[: max(0, last - first)]
    return np.repeat(mono[:, None], channels, axis=1).astype(np.float32)


# Formants in Hz of five vowels (Peterson and Barney, 1952).
VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))


def speak(spans_s: Sequence[tuple[float, float]], seconds: float, rate: int = 48000) -> np.ndarray:
    """Samples f32[n, 2] in which somebody babbles in these spans, over a faint hiss: what voices are made of.

    Syllables of a falling buzz through the formants of a vowel, some after a hiss.
    """
    rng = np.random.default_rng(5)
    mono = 0.001 * rng.standard_normal(round(seconds * rate))
    for start_s, end_s in spans_s:
        first, last = round(start_s * rate), round(end_s * rate)
        while last - first > 0.05 * rate:
            count = min(last - first, round(rng.uniform(0.14, 0.24) * rate))
            if last - first - count < 0.05 * rate:
                count = last - first
            mono[first : first + count] += _syllable(count, rate, rng)
            first += count
    return np.repeat(mono[:, None], 2, axis=1).astype(np.float32)


def _syllable(count: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    share = np.arange(count) / count
    pitch = rng.uniform(100, 150) * (1 - 0.15 * share)
    buzz = signal.sawtooth(2 * np.pi * np.cumsum(pitch) / rate) + 0.05 * rng.standard_normal(count)
    formants = VOWELS[rng.integers(len(VOWELS))]
    voice = sum(
        signal.lfilter(*signal.iirpeak(hz, hz / 80, fs=rate), buzz) / (number + 1)
        for number, hz in enumerate(formants)
    )
    voice = 0.3 * voice / np.abs(voice).max() * np.sqrt(np.sin(np.pi * share))
    if rng.random() < 0.5:
        hiss = min(count, round(0.04 * rate))
        voice[:hiss] += 0.05 * np.diff(rng.standard_normal(hiss + 1))
    return voice


def hear_beeps(samples: np.ndarray, rate: int) -> np.ndarray:
    """Times in seconds at which beeps begin in samples f32[n] or [n, channels], within about 1 ms."""
    mono = np.abs(samples if samples.ndim == 1 else samples.mean(axis=1))
    loud = np.flatnonzero(mono > 0.25 * max(mono.max(), 1e-9))
    if not len(loud):
        return np.zeros(0)
    firsts = loud[np.concatenate([[True], np.diff(loud) > 0.04 * rate])]
    return firsts / rate


def read_pictures(path: Path) -> list[np.ndarray]:
    """All frames of a file as u8[H, W, 3], coded orientation, in order of presentation."""
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def read_samples(path: Path, rate: int = 48000) -> np.ndarray:
    """The audio of a file f32[n, 2] from the start of its presentation on."""
    with av.open(str(path)) as file:
        stream = file.streams.audio[0]
        origin = Fraction(file.start_time or 0, av.time_base)
        resampler = av.AudioResampler(format="fltp", layout="stereo", rate=rate)
        first, pieces = None, []
        for frame in file.decode(stream):
            if first is None:
                first = float(frame.pts * frame.time_base - origin)
            pieces += [out.to_ndarray() for out in resampler.resample(frame)]
        pieces += [out.to_ndarray() for out in resampler.resample(None)]
    samples = np.concatenate(pieces, axis=1).T
    lead = round(first * rate)
    return np.pad(samples, ((lead, 0), (0, 0))) if lead >= 0 else samples[-lead:]


def make_begun_later(path: Path, facts: MediaFacts, first: int) -> MediaFacts:
    """The same packets, but an edit list has the presentation begin with frame `first`."""
    begin = Fraction(float(facts.times_s[first])).limit_denominator(90_000)
    with av.open(str(facts.path)) as source, av.open(str(path), "w") as output:
        streams = {stream: output.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is None:
                continue
            shift = round(begin / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = streams[packet.stream]
            output.mux(packet)
    return replace(
        facts,
        path=path,
        times_s=facts.times_s[first:] - facts.times_s[first],
        duration_s=facts.duration_s - float(facts.times_s[first]),
        first=first,
    )


def make_audio_only(path: Path, seconds: float = 2.0) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as output:
        sound = output.add_stream(CODECS[path.suffix][1], rate=48000)
        sound.layout = "stereo"
        feed = _audio_frames(synthesise("noise", seconds, np.zeros(0), 48000, 2), 48000, "stereo", 0.0)
        _mux_until(output, sound, feed, np.inf)
        output.mux(sound.encode(None))
    return path


def make_truncated(path: Path, source: Path, share: float = 0.6) -> Path:
    """The first `share` of another file's bytes."""
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def make_empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def make_text(path: Path) -> Path:
    """Words under a video's name."""
    path.write_text("This is not a video.\n" * 50)
    return path


def _audio_frames(samples: np.ndarray, rate: int, layout: str, start_s: float) -> Iterator[av.AudioFrame]:
    first = round(start_s * rate)
    for at in range(0, len(samples), 1024):
        block = np.ascontiguousarray(samples[at : at + 1024].T)
        frame = av.AudioFrame.from_ndarray(block.astype(np.float32), format="fltp", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), first + at
        yield frame


def _mux_until(
    output: av.container.OutputContainer,
    stream: av.AudioStream,
    feed: Iterator[av.AudioFrame],
    until_s: float,
) -> None:
    for frame in feed:
        output.mux(stream.encode(frame))
        if float(frame.pts * frame.time_base) >= until_s:
            return


def make_film(path: Path, pictures: Iterable[np.ndarray], fps: int = 25, quality: int = 12) -> Path:
    """A silent H.264 film of these pictures u8[H, W, 3], sides even."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": str(quality)})
        video.pix_fmt = "yuv420p"
        for number, picture in enumerate(pictures):
            if not number:
                video.height, video.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            output.mux(video.encode(frame.reformat(format="yuv420p")))
        output.mux(video.encode(None))
    return path
