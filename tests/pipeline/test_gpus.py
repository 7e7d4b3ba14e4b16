"""Which workers get a GPU: those of `look` and `render`, one each at a time, and no others."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.media import make_video

GPUS = 2
FOLDER = "GPU_NOTES"


def noted(stage: str, make: Callable[..., Any]) -> Callable[..., Any]:
    """`make`, and what it makes notes first which GPUs its worker was given."""

    def make_noted(*arguments: Any, **named: Any) -> Any:
        import ray

        note = {"stage": stage, "ray": ray.get_gpu_ids(), "cuda": os.environ.get("CUDA_VISIBLE_DEVICES")}
        Path(os.environ[FOLDER], f"{stage}-{os.getpid()}.json").write_text(json.dumps(note))
        return make(*arguments, **named)

    return make_noted


def main(library: str, output: str, bundle: str) -> None:
    """A run on a Ray that believes to have two GPUs."""
    import ray

    from jobs.highlights import Options, highlights
    from pipeline import steps

    environment = {"env_vars": {FOLDER: os.environ[FOLDER]}}
    ray.init("local", num_cpus=8, num_gpus=GPUS, include_dashboard=False, runtime_env=environment)
    for stage in ("look", "score", "render"):
        name = f"make_{stage}"
        setattr(steps, name, noted(stage, getattr(steps, name)))
    steps.Gather = noted("gather", steps.Gather)
    steps.decode = noted("decode", steps.decode)
    sys.exit(highlights(Options(library, output, flags=(("cut.target", "2s"), ("bundle", bundle)))))


@pytest.mark.slow
def test_gpus_go_to_the_pools_that_need_them_and_to_no_others(tmp_path: Path, bundle: str) -> None:
    library, notes = tmp_path / "library", tmp_path / "notes"
    for folder in (library, notes):
        folder.mkdir()
    for number in range(4):
        make_video(library / f"{number}.mp4", seconds=3, shots=2)
    done = subprocess.run(
        [sys.executable, "-m", "tests.pipeline.test_gpus", library, tmp_path / "output", bundle],
        env=os.environ | {FOLDER: str(notes)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(path.read_text()) for path in notes.iterdir()]
    assert {note["stage"] for note in found} == {"decode", "look", "gather", "score", "render"}
    for note in found:
        assert len(note["ray"]) == (1 if note["stage"] in ("look", "render") else 0), note
        # What Ray gave is what torch sees; without a GPU, it sees none.
        assert (note["cuda"] or "") == ",".join(map(str, note["ray"])), note
    assert {gpu for note in found for gpu in note["ray"]} == set(range(GPUS)), found


if __name__ == "__main__":
    main(*sys.argv[1:])
