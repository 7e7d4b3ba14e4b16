"""What a job needs of its cluster: room, storage that every node reaches, one bundle, one code, scratch."""

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import ray
from botocore.exceptions import BotoCoreError, ClientError

import cluster
import pipeline
import stages
from cluster.connect import cluster_address
from cluster.plan import Plan
from cluster.preflight import Probe, Scratch, check_cluster
from pipeline import storage
from pipeline.config import Settings
from pipeline.redact import without_secrets
from pipeline.run import Job
from stages.cut import target_seconds
from stages.filesystem import protocol_of
from stages.nn.weights import BundleError, open_bundle

REEL_BYTES_PER_S = 50e6 / 8  # 4K at the default quality seldom takes more
SOUND_BYTES_PER_S = 48_000 * 2 * 4
COPIES = 2  # what is being written, and what is being sent
LEAST_SCRATCH_BYTES = 256 << 20  # posters, clips, grades


def preflight(job: Job, plan: Plan, address: str | None) -> list[str]:
    """Raises ClusterUnfit with everything that would stop the run; returns what else is worth saying."""
    if cluster_address(address) is None:
        return check_cluster(plan, scratch_bytes(job, plan.render))
    nodes = sum(node["Alive"] and bool(node["Resources"].get("CPU")) for node in ray.nodes())
    with token_in(job.output) as token:
        probes: list[Probe] = [
            partial(same_code, code_key()),
            partial(can_read, first_file(job)),
            partial(can_write, job.output, token),
            partial(same_bundle, job.settings.bundle, job.bundle.key()),
        ]
        return check_cluster(plan, scratch_bytes(job, -(-plan.render // max(1, nodes))), probes)


def first_file(job: Job) -> str:
    """A file that the run will read: its first video, or a table of the archive that it scores again."""
    if not job.from_proxies:
        return job.todo["uri"][0].as_py()
    folder = storage.join(job.library, "videos")
    return storage.join(folder, storage.list_files(folder, ".parquet")[0])


@contextmanager
def token_in(output: str) -> Iterator[str]:
    """A small file in OUTPUT while the nodes look for it: each must see the same OUTPUT, not its own disk."""
    name = f".reelmap-check-{secrets.token_hex(8)}"
    storage.write_bytes(storage.join(output, name), name.encode())
    try:
        yield name
    finally:
        storage.delete(storage.join(output, name))


def same_code(key: str) -> str | None:
    if code_key() == key:
        return None
    return (
        "reelmap has other code than the driver's: install the same version there, or send the code along "
        "(reelmap submit --working-dir)"
    )


def code_key() -> str:
    """Hash of the Python files that workers run; installed or sent along, the same code has the same key."""
    digest = hashlib.sha256()
    for package in (cluster, pipeline, stages):
        root = Path(package.__file__).parent
        for file in sorted(root.rglob("*.py")):
            digest.update(file.relative_to(root.parent).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def can_read(uri: str) -> str | None:
    try:
        with storage.open_input(uri) as file:
            file.read(1)
    except storage.StorageError as error:
        return f"{error}{of_one_machine(uri)}"
    return None


def can_write(output: str, token: str) -> str | None:
    try:
        storage.read_bytes(storage.join(output, token))
    except storage.Missing:
        return f"{storage.shown(output)} is not the folder that the driver writes to{of_one_machine(output)}"
    except storage.StorageError as error:
        return str(error)
    try:
        storage.check_writable(output)
    except storage.StorageError as error:
        return str(error)
    return None


def same_bundle(uri: str | None, key: str) -> str | None:
    """Opens every model, as the pools will."""
    where = storage.shown(uri) if uri else "the model bundle of the package"
    try:
        bundle = open_bundle(uri)
        for model in bundle.models:
            bundle.state(model)
    except BundleError as error:
        return f"{without_secrets(str(error))}{of_one_machine(uri or '')}"
    except (OSError, BotoCoreError, ClientError) as error:
        return f"cannot read {where}: {storage.reason(error)}{of_one_machine(uri or '')}"
    if bundle.key() != key:
        return f"{where} holds other weights than the driver's: give all nodes the same, or an s3:// URI"
    return None


def of_one_machine(uri: str) -> str:
    if not uri or protocol_of(uri) != "file":
        return ""
    return " (a local folder is seen by its own machine only: use a shared one, or s3://)"


def scratch_bytes(job: Job, renders: int) -> Scratch:
    """What reels take in the temporary folder of a node: the largest, and `renders` of the largest at once.

    Of a reel that is a share of its video this is much more than it usually takes: only a disk that has no
    room for one of them is certain to end in a failure.
    """
    reels = sorted((reel_bytes(job.settings, size) for size in sizes_of(job)), reverse=True)
    together = COPIES * sum(reels[:renders])
    return Scratch(LEAST_SCRATCH_BYTES + (reels[0] if reels else 0), LEAST_SCRATCH_BYTES + together)


def sizes_of(job: Job) -> list[int]:
    return [size or 0 for size in job.todo["size_bytes"].to_pylist()]


def reel_bytes(settings: Settings, video_bytes: int) -> int:
    """More than a reel of a video of so many bytes is likely to take."""
    target = settings.cut.target
    if target.endswith("%"):
        return int(video_bytes * target_seconds(target, 1.0))
    seconds = target_seconds(target, 0.0)
    return int(min(video_bytes, seconds * REEL_BYTES_PER_S) + seconds * SOUND_BYTES_PER_S)
