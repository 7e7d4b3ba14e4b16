"""The head of compose.yaml as in its container: no root, no rights, nothing to write to but /tmp.

No container runtime is needed: the command and the health check of the file run to the letter in
namespaces of their own, below a read-only view of this machine's files.
"""

import os
import secrets
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.manifests import DEPLOY, ROOT, read

TOOLS = ("unshare", "setpriv", "chroot", "ip", "mount")
UID = 1000
# The interpreter may lie in root's home, which nobody else may enter: it is shown below an empty one.
SETUP = """set -e
mount --make-rprivate /
mount --rbind / $VIEW
mount -o remount,ro,bind $VIEW
mount -t tmpfs -o mode=1777 tmpfs $VIEW/tmp
mount -t tmpfs -o mode=1777 tmpfs $VIEW/dev/shm
if [ "${PYTHON#/root/}" != "$PYTHON" ]; then
  mount -t tmpfs -o mode=755 tmpfs $VIEW/root
  mkdir -p $VIEW$PYTHON
  mount --bind $PYTHON $VIEW$PYTHON
fi
mount -t proc proc $VIEW/proc
ip link set lo up
ip link add eth0 type veth peer name eth1
ip link set eth1 up
ip addr add 10.9.0.1/24 dev eth0
ip link set eth0 up
ip route add default dev eth0
exec chroot $VIEW setpriv --reuid $ID --regid $ID --clear-groups --bounding-set=-all --inh-caps=-all \\
  --no-new-privs env -i HOME=/home PATH=$BIN:/usr/bin:/bin PYTHONPATH=$CODE XDG_CACHE_HOME=/tmp/cache \\
  RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=/tmp/token bash -c "$SCRIPT"
"""
ASK = """
import urllib.error, urllib.request
for url in ("http://127.0.0.1:8265/api/gcs_healthz", "http://127.0.0.1:52365/api/local_raylet_healthz",
            "http://10.9.0.1:8265/api/jobs/"):
    try:
        print("status", urllib.request.urlopen(url, timeout=10).status, url)
    except urllib.error.HTTPError as error:
        print("status", error.code, url)
"""


def script(head: dict, token: str) -> str:
    check = shlex.join(head["healthcheck"]["test"][1:])
    return f"""
touch /etc/written 2>/dev/null && echo wrote to the root
grep -E "CapEff|CapBnd|NoNewPrivs|^Uid" /proc/self/status
echo {token} > /tmp/token
{shlex.join(head["command"])} > /tmp/head.log 2>&1 &
for second in $(seq 120); do {check} 2>/dev/null && echo healthy && break; sleep 1; done
python -c {shlex.quote(ASK)}
ray job submit --address http://127.0.0.1:8265 -- reelmap --version
echo "other" > /tmp/token
ray job list --address http://127.0.0.1:8265 2>&1 | tail -n 3
tail -n 5 /tmp/head.log
"""


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, TOOLS)), reason="needs root and util-linux"
)
def test_head_runs_without_root_rights_or_a_writable_root(tmp_path: Path) -> None:
    namespaces = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*namespaces, "true"], capture_output=True).returncode:
        pytest.skip("no namespaces may be made here")
    head = read(DEPLOY / "compose.yaml")[0]["services"]["head"]
    assert head["read_only"] is True
    assert head["user"] == f"{UID}:{UID}"
    token = secrets.token_hex(32)
    env = os.environ | {
        "VIEW": str(tmp_path),
        "PYTHON": sys.base_prefix,
        "BIN": str(Path(sys.executable).parent),
        "CODE": str(ROOT),
        "ID": str(UID),
        "SCRIPT": script(head, token),
    }
    done = subprocess.run(
        [*namespaces, "bash", "-c", SETUP], env=env, capture_output=True, text=True, timeout=400, check=False
    )
    said = done.stdout + done.stderr
    assert "wrote to the root" not in said
    assert "NoNewPrivs:\t1" in said
    assert said.count(f"{0:016x}") == 2, "it has capabilities"
    assert "healthy" in said, said
    assert "status 200 http://127.0.0.1:8265/api/gcs_healthz" in said
    assert "status 200 http://127.0.0.1:52365/api/local_raylet_healthz" in said
    assert "status 401 http://10.9.0.1:8265/api/jobs/" in said
    assert "reelmap, version" in said
    assert "succeeded" in said
    assert token not in said
