"""A process of its own for test_metrics.py: a run on a Ray whose metrics are read all the while.

    python -m tests.cluster.watched LIBRARY OUTPUT BUNDLE FILE

FILE gets, as JSON, the highest value of every series that was on the agent's page, and the lines that the
workers logged; what the command itself says goes to standard error.
"""

import json
import sys
import threading
import urllib.request
from contextlib import suppress
from pathlib import Path

import ray
from prometheus_client.parser import text_string_to_metric_families
from ray._private.worker import global_worker

from cluster.connect import _on_loopback, _without_stderr, environment
from jobs.highlights import Options, highlights


def main(library: str, output: str, bundle: str, file: str) -> int:
    # As in a run: what Ray itself says of actors is no event of ours.
    with _on_loopback(), environment({"RAY_BACKEND_LOG_LEVEL": "fatal"}), _without_stderr():
        ray.init(
            address="local",
            num_cpus=8,
            object_store_memory=256 << 20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            _system_config={"metrics_report_interval_ms": 1000},
        )
    (node,) = ray.nodes()
    page = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    seen: dict[str, tuple[str, dict[str, str], float]] = {}
    ended = threading.Event()

    def scrape() -> None:
        with suppress(OSError):  # the agent is a second behind the node
            text = urllib.request.urlopen(page, timeout=10).read().decode()
            for family in text_string_to_metric_families(text):
                for name, labels, value, *_ in family.samples:
                    key = json.dumps([name, sorted(labels.items())])
                    seen[key] = name, labels, max(value, seen[key][2] if key in seen else value)

    def watch() -> None:
        while not ended.wait(1.0):
            scrape()

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = highlights(Options(library, output, flags=(("bundle", bundle), ("cut.target", "3s"))))
    ended.wait(3.0)  # what an actor has counted comes out when it has ended
    scrape()
    ended.set()
    watcher.join()
    logs = Path(global_worker.node.get_session_dir_path()) / "logs"
    lines = [line for path in logs.glob("worker-*.err") for line in path.read_text().splitlines()]
    Path(file).write_text(json.dumps({"series": list(seen.values()), "logged": lines}))
    ray.shutdown()
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
