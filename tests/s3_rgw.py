"""Runs the tests of storage against Ceph's RADOS gateway, started here on loopback and stopped again.

python -m tests.s3_rgw [PYTEST ARGUMENTS]     installs the gateway first if it is missing and can be installed

One monitor, one object store in a sparse file, the gateway: Debian's or Ubuntu's packages ceph-mon, ceph-osd
and radosgw (100 MB, 400 MB on disk), no container, no root but for the installation. Unlike moto it keeps
keys of any kind, refuses strangers and checks signatures. Any other server can be tested, too:
TEST_S3_ENDPOINT=http://... TEST_S3_KEY=... pytest ... with the secret key SECRET.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEY, SECRET = "testkey", "testsecret12345"
PACKAGES = ("ceph-mon", "ceph-osd", "radosgw")
# What talks to S3; with "slow" tests left out, and those that stay on the local disk.
TESTS = (
    *("tests/stages/test_s3.py", "tests/pipeline/test_storage.py", "tests/pipeline/test_library.py"),
    *("tests/pipeline/test_lease.py", "tests/pipeline/test_s3_flow.py", "-m", "not slow", "-k", "s3"),
)
START_S = 120
# Small, quick to start, without authentication between its own daemons: for a test and no more.
CONFIG = """[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon_port}/0]
mon initial members = a
auth cluster required = none
auth service required = none
auth client required = none
ms cluster mode = crc
ms service mode = crc
ms client mode = crc
ms mon cluster mode = crc
ms mon service mode = crc
ms mon client mode = crc
ms bind ipv4 = true
ms bind ipv6 = false
ms bind msgr1 = false
ms initial backoff = 0.05
ms max backoff = 0.3
mon client hunt interval = 0.5
public addr = 127.0.0.1
cluster addr = 127.0.0.1
run dir = {folder}
admin socket = {folder}/$name.$pid.asok
pid file = {folder}/$name.pid
log file = {folder}/$name.log
crash dir = {folder}
mon data = {folder}/mon
mon data avail crit = 1
mon data avail warn = 2
mon allow pool size one = true
mon max pg per osd = 1000
mon tick interval = 1
paxos propose interval = 0.05
paxos min wait = 0.02
osd data = {folder}/osd
osd objectstore = bluestore
bluestore block size = 8589934592
bluestore block create = true
bluestore cache size = 67108864
osd memory target = 939524096
osd max object name len = 2048
osd crush chooseleaf type = 0
osd tick interval = 1
osd heartbeat interval = 2
osd class update on start = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 2
osd pool default pgp num = 2
osd pool default pg autoscale mode = off
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw thread pool size = 32
rgw dns name = localhost
rgw relaxed region enforcement = true
rgw enable usage log = false
rgw override bucket index max shards = 1
rgw dynamic resharding = false
"""


def install() -> str:
    """Installs what is missing; why that is not possible, in words, "" when all is there."""
    absent = [name for name in PACKAGES if not shutil.which(name)]
    if not absent:
        return ""
    apt = shutil.which("apt-get")
    if not apt or os.geteuid() != 0:
        return f"{', '.join(absent)} not found: install the packages {' '.join(PACKAGES)} (apt-get, as root)"
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-q"], ["install", "-y", "-q", "--no-install-recommends", *PACKAGES]):
        if subprocess.run([apt, *command], env=env, check=False).returncode:
            return f"apt-get {command[0]} failed: see above"
    return ""


@contextmanager
def serve() -> Iterator[str]:
    """Runs the gateway with empty storage and one user; the value is its endpoint."""
    with tempfile.TemporaryDirectory(prefix="rgw-") as name:
        folder, daemons = Path(name), []
        port, mon_port = _free_port(), _free_port()
        fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
        config = folder / "ceph.conf"
        config.write_text(CONFIG.format(fsid=fsid, folder=folder, port=port, mon_port=mon_port))
        (folder / "mon").mkdir()
        (folder / "osd").mkdir()
        monmap = str(folder / "monmap")

        def run(program: str, *arguments: str) -> None:
            command = [program, *(() if program == "monmaptool" else ("-c", str(config))), *arguments]
            done = subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")

        def start(program: str, *arguments: str) -> None:
            with (folder / f"{program}.out").open("wb") as out:
                command = [program, "-c", str(config), *arguments, "-f"]
                daemons.append(subprocess.Popen(command, stdout=out, stderr=out))

        try:
            address = f"[v2:127.0.0.1:{mon_port}/0]"
            run("monmaptool", "--create", "--clobber", "--addv", "a", address, "--fsid", fsid, monmap)
            run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
            start("ceph-mon", "-i", "a")
            run("ceph", "--connect-timeout", "30", "osd", "new", osd)
            run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
            start("ceph-osd", "-i", "0")
            start("radosgw", "-n", "client.rgw")
            _wait(port, daemons)
            user = ("--uid=test", "--display-name=test", f"--access-key={KEY}", f"--secret-key={SECRET}")
            run("radosgw-admin", "-n", "client.rgw", "user", "create", *user)
            yield f"http://127.0.0.1:{port}"
        finally:
            for daemon in reversed(daemons):
                daemon.send_signal(signal.SIGTERM)
            for daemon in reversed(daemons):
                try:
                    daemon.wait(timeout=15)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()


def _wait(port: int, daemons: list[subprocess.Popen]) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        for daemon in daemons:
            if daemon.poll() is not None:
                raise RuntimeError(f"{' '.join(daemon.args)} ended with {daemon.returncode}")
        try:
            direct.open(f"http://127.0.0.1:{port}/", timeout=2).close()
            return
        except urllib.error.HTTPError:
            return  # refused: it answers
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"the gateway did not answer within {START_S} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main() -> int:
    if why := install():
        print(f"no gateway, no tests: {why}", file=sys.stderr)
        return 2
    with serve() as endpoint:
        env = os.environ | {"TEST_S3_ENDPOINT": endpoint, "TEST_S3_KEY": KEY}
        command = [sys.executable, "-m", "pytest", *(sys.argv[1:] or TESTS)]
        return subprocess.run(command, env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
