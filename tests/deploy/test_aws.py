"""The cluster on EC2: Ray's own validation takes it; roles instead of keys, spot workers, none while idle."""

from typing import Any

import pytest
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.deploy.manifests import DEPLOY, VERSION, Tree, changed, read, walk


def cluster() -> Tree:
    return read(DEPLOY / "aws" / "cluster.yaml")[0]


def faults(tree: Tree) -> list[str]:
    wrong = []
    for path, part in walk(tree):
        if path.split(".")[-1] in ("image", "head_image", "worker_image") and f":{VERSION}-" not in part:
            wrong.append(f"{path}: {part} is not {VERSION}")
    types = tree["available_node_types"]
    for name, kind in types.items():
        node = kind["node_config"]
        market = node.get("InstanceMarketOptions", {}).get("MarketType")
        if (market == "spot") != (name != tree["head_node_type"]):
            wrong.append(f"{name}: {market or 'on demand'}")
        wrong += [
            f"{name}: no {key}" for key in ("IamInstanceProfile", "SecurityGroupIds") if key not in node
        ]
        wrong += [f"{name}: {key}" for key in ("KeyName", "UserData") if key in node]
        if node.get("MetadataOptions", {}).get("HttpTokens") != "required":
            wrong.append(
                f"{name}: credentials of the node for any request that a program can be made to send"
            )
        if not all(disk["Ebs"].get("Encrypted") for disk in node["BlockDeviceMappings"]):
            wrong.append(f"{name}: disk in clear")
        if kind["min_workers"] != 0:
            wrong.append(f"{name}: costs while idle")
    if types[tree["head_node_type"]]["resources"] != {"CPU": 0}:
        wrong.append("work may run on the head")
    if sum(kind["max_workers"] for kind in types.values()) > tree["max_workers"]:
        wrong.append("node types promise more than max_workers")
    starts = tree["head_start_ray_commands"] + tree["worker_start_ray_commands"]
    if not any("--autoscaling-config=" in line for line in tree["head_start_ray_commands"]):
        wrong.append("no autoscaler")
    if any("--dashboard-host=0.0.0.0" in line for line in starts):
        wrong.append("the Jobs API is open to the network")
    if "/home/reelmap/.ray" not in tree["file_mounts"] or "RAY_AUTH_MODE=disabled" in str(tree):
        wrong.append("Ray without a token")
    if "security_group" in tree["provider"]:
        wrong.append("Ray would open port 22 of a group of its own to everybody")
    return wrong


def test_ray_takes_it() -> None:
    validate_config(prepare_config(cluster()))
    assert faults(cluster()) == []


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        ("idle_timeout", 5, ValidationError),
        ("docker/imag", "x", ValidationError),
        ("provider/type", None, (ValidationError, KeyError)),
        ("available_node_types/cpu/resources", {"CPU": "8"}, ValidationError),
        ("available_node_types/gpu/min_worker", 0, ValidationError),
        ("head_node_type", "haed", (ValueError, KeyError)),
    ],
)
def test_slip_is_refused_by_ray(path: str, value: Any, error: type[Exception]) -> None:
    broken = changed(cluster(), path, value)
    with pytest.raises(error):
        validate_config(prepare_config(broken))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("available_node_types/cpu/node_config/InstanceMarketOptions", None),
        ("available_node_types/head/node_config/InstanceMarketOptions", {"MarketType": "spot"}),
        ("available_node_types/gpu/node_config/IamInstanceProfile", None),
        ("available_node_types/gpu/node_config/KeyName", "mine"),
        ("available_node_types/cpu/node_config/MetadataOptions/HttpTokens", "optional"),
        ("available_node_types/cpu/node_config/BlockDeviceMappings/0/Ebs/Encrypted", False),
        ("available_node_types/cpu/min_workers", 2),
        ("available_node_types/head/resources", {"CPU": 2}),
        ("available_node_types/gpu/docker/worker_image", "reelmap:0.0.1-cuda"),
        ("max_workers", 8),
        ("file_mounts", {}),
        ("provider/security_group", {"GroupName": "reelmap"}),
        ("head_start_ray_commands/1", "ray start --head --dashboard-host=0.0.0.0"),
    ],
)
def test_breach_is_found(path: str, value: Any) -> None:
    assert faults(changed(cluster(), path, value))
