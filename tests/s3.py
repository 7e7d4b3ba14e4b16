"""An S3 server for tests: moto in a process of its own, on loopback, gone when its test run is gone.

python -m tests.s3 [IP]     prints its port, then serves until its standard input closes
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def serve(ip: str = "127.0.0.1") -> Iterator[str]:
    """Runs the server; the value is its endpoint."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.s3", ip],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        port = process.stdout.readline().strip()
        if not port:
            raise RuntimeError("the S3 server for tests did not start: run `python -m tests.s3` to see why")
        yield f"http://{ip}:{port}"
    finally:
        process.stdin.close()
        process.wait(timeout=20)
        process.stdout.close()


def main() -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=(sys.argv[1:] or ["127.0.0.1"])[0], port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    sys.stdin.read()  # ends with the process that started us, even if that was killed
    server.stop()


if __name__ == "__main__":
    main()
