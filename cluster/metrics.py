"""What a run tells Prometheus, through the metrics agent that Ray runs on every node.

One process records everything, the meter of the run (pipeline/progress.py), because Ray adds the worker's id
to the labels: recorded where the work is done, every worker that a cluster ever had would be a series of its
own, and the agent forgets none of them. A value costs some 2 µs and is sent every 10 s, the last ones when
the actor ends. On the page of the agent `ray_` stands before each name.

Ray keeps of a histogram its buckets only, so that its sum is a guess: sums of seconds are counters.
A counter is not there before it has counted, so that the first step of a rare one is no `increase`: look at
the counter itself, which begins at zero with each run.
"""

from dataclasses import dataclass, field

from ray.util.metrics import Counter, Gauge, Histogram

RUN, STAGE = ("run",), ("run", "stage")
# name -> what it says, labels
COUNTERS = {
    "reelmap_videos_total": ("Videos published, by status and by the stage that said so", (*STAGE, "status")),
    "reelmap_published_seconds_total": ("Footage of the videos that were published as ok", RUN),
    "reelmap_reel_seconds_total": ("Length of the reels", RUN),
    "reelmap_clips_total": ("Clips found", RUN),
    "reelmap_rows_in_total": ("Rows that a stage began with: videos, shards from decode to gather", STAGE),
    "reelmap_rows_out_total": ("Rows that came out of a stage without a failure", STAGE),
    "reelmap_footage_seconds_total": ("Footage whose header was read (probe), that was decoded", STAGE),
    "reelmap_frames_decoded_total": ("Frames decoded for analysis", STAGE),
    "reelmap_frames_sampled_total": ("Frames that the networks were shown", STAGE),
    "reelmap_stage_wall_seconds_total": ("Wall time of the stage, without waiting for others", STAGE),
    "reelmap_stage_cpu_seconds_total": ("CPU time of its processes meanwhile", STAGE),
    "reelmap_read_bytes_total": ("Bytes that a store gave, or packets of local sources", STAGE),
    "reelmap_written_bytes_total": ("Bytes written to the output", STAGE),
    "reelmap_storage_retries_total": ("Requests that a store had to be asked again", STAGE),
    "reelmap_failures_total": ("Rows that failed, by stage and kind", (*STAGE, "kind")),
    "reelmap_put_off_total": ("Rows left to be planned again, and why", (*STAGE, "kind")),
}
GAUGES = {
    "reelmap_planned_videos": ("Videos that the run set out to do", RUN),
    "reelmap_queue_rows": ("Rows that wait for a stage or are in it", STAGE),
    "reelmap_open_videos": ("Videos of which gather has some shards and not yet all", STAGE),
    "reelmap_batch_frames": ("Frames in a network at a time; fewer where a GPU was full", STAGE),
}
ROW_SECONDS = "reelmap_row_seconds"
ROW_SECONDS_BOUNDS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0]

# What is counted on the way (stages/tally.py), by name.
_COUNTED = {name: f"reelmap_{name}_total" for name in ("read_bytes", "written_bytes", "storage_retries")}
_LEVELS = {name: f"reelmap_{name}" for name in ("open_videos", "batch_frames")}


@dataclass
class Work:
    """What one row meant for one stage."""

    stage: str
    rows_in: int = 0  # 0 for one that had failed before
    rows_out: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    footage_s: float = 0.0
    frames_decoded: int = 0
    frames_sampled: int = 0
    failed: str = ""  # dropped, failed, or unexpected: what no stage raises on purpose
    put_off: str = ""  # storage, disk, aside (it may have killed its worker), late (for the deadline)
    counts: dict[str, int] = field(default_factory=dict)  # of stages/tally.py, while it was at work
    levels: dict[str, float] = field(default_factory=dict)
    copy_s: float = 0.0  # between Arrow and the stage's arrays


class Metrics:
    """The metrics of one run."""

    def __init__(self, run_id: str):
        self._run = {"run": run_id}
        self._counters = {name: Counter(name, *about) for name, about in COUNTERS.items()}
        self._gauges = {name: Gauge(name, *about) for name, about in GAUGES.items()}
        self._row_seconds = Histogram(ROW_SECONDS, "Wall time of a row", ROW_SECONDS_BOUNDS, STAGE)

    def plan(self, videos: int) -> None:
        self._set("reelmap_planned_videos", videos, self._run)

    def wait(self, stage: str, rows: int) -> None:
        self._set("reelmap_queue_rows", rows, self._run | {"stage": stage})

    def add(self, work: Work) -> None:
        tags = self._run | {"stage": work.stage}
        sums = {
            "reelmap_rows_in_total": work.rows_in,
            "reelmap_rows_out_total": work.rows_out,
            "reelmap_footage_seconds_total": work.footage_s,
            "reelmap_frames_decoded_total": work.frames_decoded,
            "reelmap_frames_sampled_total": work.frames_sampled,
            "reelmap_stage_wall_seconds_total": work.wall_s,
            "reelmap_stage_cpu_seconds_total": work.cpu_s,
        } | {_COUNTED[name]: value for name, value in work.counts.items()}
        for name, value in sums.items():
            self._count(name, value, tags)
        if work.failed:
            self._count("reelmap_failures_total", 1, tags | {"kind": work.failed})
        if work.put_off:
            self._count("reelmap_put_off_total", 1, tags | {"kind": work.put_off})
        else:
            self._row_seconds.observe(work.wall_s, tags)
        for name, value in work.levels.items():
            self._set(_LEVELS[name], value, tags)

    def publish(self, status: str, stage: str, footage_s: float, reel_s: float, clips: int) -> None:
        """One video; `stage` is the one in which it failed."""
        self._count("reelmap_videos_total", 1, self._run | {"stage": stage, "status": status})
        self._count("reelmap_published_seconds_total", footage_s, self._run)
        self._count("reelmap_reel_seconds_total", reel_s, self._run)
        self._count("reelmap_clips_total", clips, self._run)

    def _count(self, name: str, value: float, tags: dict[str, str]) -> None:
        if value > 0:  # Ray refuses to count nothing
            self._counters[name].inc(value, tags)

    def _set(self, name: str, value: float, tags: dict[str, str]) -> None:
        self._gauges[name].set(value, tags)
