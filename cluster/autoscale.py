"""Nodes that come with the work: asked for before a plan is made, waited for, and given back after the run.

A cluster that scales to zero has no CPUs to plan for, and pools keep the size that they start with: nodes
that come later than the plan would have nothing to do. So the autoscaler is told first what the run would
like. Ray does not say whether there is an autoscaler. A cluster that has no CPUs at all may also be one whose
workers are still starting: it is waited for like one that scales.
"""

import contextlib
import time
from collections.abc import Callable, Iterator

from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError

from cluster.connect import cluster_address
from cluster.plan import PoolSettings, shortages
from cluster.resources import connected

COME_S = 900.0  # for a machine to be there: itself, its image, Ray
POLL_S = 5.0
LEAST_CPUS = 4  # where no number is set: more than the smallest pools hold


@contextlib.contextmanager
def room(address: str | None, pools: PoolSettings, say: Callable[[str], None]) -> Iterator[None]:
    """While it is held, a cluster that scales has the CPUs of `pools.cpus`, or as many as came in time."""
    if cluster_address(address) is None:
        yield
        return
    wanted = pools.cpus or (0 if connected(address).nodes else LEAST_CPUS)
    if not wanted:
        yield
        return
    request_resources(num_cpus=wanted)
    try:
        wait(address, wanted, pools, say)
        yield
    finally:
        # Of a head that is gone the request is gone too.
        with contextlib.suppress(RayError, RuntimeError, ConnectionError):
            request_resources()


def wait(address: str | None, wanted: int, pools: PoolSettings, say: Callable[[str], None]) -> None:
    """Until so many CPUs are there, or the time is over; what is missing then is for the plan to say."""
    until, said = time.monotonic() + COME_S, None
    within = f"within {COME_S / 60:g} minutes"
    while (has := connected(address)).cores < wanted:
        if time.monotonic() >= until:
            if not shortages(has, pools):
                say(f"{has.cores:g} of {wanted} CPUs came {within}: the plan is for those")
            else:
                say(
                    f"no nodes with room for a run came {within}: see what the autoscaler says (ray status), "
                    "and how many workers it may start"
                )
            return
        if has.cores != said:
            said = has.cores
            say(f"waiting for nodes: {said:g} of {wanted} CPUs are there ({COME_S / 60:g} minutes at most)")
        time.sleep(POLL_S)
