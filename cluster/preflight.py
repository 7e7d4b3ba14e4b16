"""What would stop a run on this cluster, said before any work is done."""

import ray

from cluster.plan import Plan


class ClusterTooSmall(Exception):
    """The message says what the plan wants, what there is, and what to change."""


def check_cluster(plan: Plan) -> None:
    """Raises ClusterTooSmall if the connected cluster cannot hold every pool of the plan at once."""
    have = ray.cluster_resources()
    for name, wanted in plan.demand().items():
        if have.get(name, 0) + 1e-9 < wanted:
            raise ClusterTooSmall(
                f"the plan wants {wanted:g} {name}, the cluster has {have.get(name, 0):g}: add a node, or "
                f"start Ray with more (ray start --num-{name.lower()}s)"
            )
