"""Momentary loudness (EBU R 128, 400 ms windows) of an audio stream, by FFmpeg's ebur128 filter."""

import math

import av
import av.filter
import numpy as np

FLOOR_LUFS = -70.0
STEP_S = 0.5
_WINDOW_S, _HOP_S = 0.4, 0.1


class MomentaryLoudness:
    """Feed decoded audio frames in order; read LUFS per half second of [start_s, end_s)."""

    def __init__(self, start_s: float, end_s: float):
        self.start_s, self.end_s = start_s, end_s
        self._graph: av.filter.Graph | None = None
        self._form: tuple | None = None
        self._zero_s = 0.0  # what the filter's clock lacks
        self._full_s = 0.0  # from when on the windows are full
        self._at_s: list[float] = []
        self._lufs: list[float] = []

    def add(self, frame: av.AudioFrame, seconds: float) -> None:
        end_s = seconds + frame.samples / frame.sample_rate
        if seconds >= self.end_s + STEP_S or end_s < self.start_s - 2 * STEP_S:
            return
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._form:  # the first frame, or a stream that changes on the way
            self.flush()
            self._open(frame, form)
            self._zero_s = seconds - float(frame.pts * frame.time_base)
            # After a seek the first windows are only partly filled, and would read too low.
            self._full_s = seconds + _WINDOW_S if self.start_s > 0 else 0.0
        self._graph.push(frame)
        self._pull()

    def flush(self) -> None:
        if self._graph is not None:
            self._graph.push(None)
            self._pull()
            self._graph = self._form = None

    def half_seconds(self, start_s: float) -> np.ndarray:
        """LUFS [M] per half second from start_s: the mean power of what falls into it."""
        pairs = zip(self._at_s, self._lufs, strict=True)
        # The first windows of the stream reach back before its beginning.
        pairs = [(max(at, 0.0), lufs) for at, lufs in pairs]
        keep = [(at, lufs) for at, lufs in pairs if start_s <= at < self.end_s]
        if not keep:
            return np.empty(0, np.float32)
        index = np.array([int((at - start_s) / STEP_S) for at, _ in keep])
        power = np.array([10 ** (lufs / 10) for _, lufs in keep])
        count = np.bincount(index)
        mean = np.bincount(index, power) / np.maximum(count, 1)
        return np.maximum(10 * np.log10(np.maximum(mean, 1e-12)), FLOOR_LUFS).astype(np.float32)

    def _open(self, frame: av.AudioFrame, form: tuple) -> None:
        graph = av.filter.Graph()
        source = graph.add_abuffer(
            sample_rate=frame.sample_rate,
            format=frame.format.name,
            layout=frame.layout.name,
            time_base=frame.time_base,
        )
        graph.link_nodes(source, graph.add("ebur128", "metadata=1"), graph.add("abuffersink")).configure()
        self._graph, self._form = graph, form

    def _pull(self) -> None:
        while True:
            try:
                frame = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            # Digital silence after sound has no value.
            lufs = float(frame.metadata.get("lavfi.r128.M", "-inf"))
            end_s = float(frame.pts * frame.time_base) + self._zero_s + _HOP_S
            if end_s >= self._full_s - 1e-3:
                self._at_s.append(end_s - _WINDOW_S / 2)
                self._lufs.append(max(lufs, FLOOR_LUFS) if math.isfinite(lufs) else FLOOR_LUFS)
