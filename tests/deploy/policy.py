"""What a manifest may not do, as lists of what is wrong with it: an empty list may pass."""

import ast
import re
import shlex
from pathlib import Path

import click

from jobs.cli import main
from tests.deploy.manifests import VERSION, Tree, one, pods, ray_pin, walk

# Keys of AWS, of other services with a prefix, private keys, and long random texts after words for secrets.
SECRETS = re.compile(
    r"(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|sk-[A-Za-z0-9]{20}|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|(?i:secret|token|password|key)[A-Za-z_]*['\"]?\s*[:=]\s*['\"]?[A-Za-z0-9/+]{20,}(?![A-Za-z0-9/+_.{-])"
)
AGENT_PORT = 52365  # Ray's default: no manifest sets another
HARDENED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
NO_POD_MAY = ("hostPath", "hostNetwork", "hostPID", "hostIPC", "privileged", "hostPort")


def secrets_in(text: str) -> list[str]:
    return [f"looks like a key: {match.group()[:12]}…" for match in SECRETS.finditer(text)]


def pod_rights(tree: Tree) -> list[str]:
    wrong = []
    for where, pod in pods(tree):
        spec = pod["spec"]
        context = spec.get("securityContext", {})
        if not context.get("runAsNonRoot") or not context.get("runAsUser"):
            wrong.append(f"{where}: may run as root")
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            wrong.append(f"{where}: no seccomp profile")
        if spec.get("automountServiceAccountToken") is not False:
            wrong.append(f"{where}: a token of the Kubernetes API in every container")
        if "serviceAccountName" not in spec:
            wrong.append(f"{where}: the namespace's default account")
        wrong += [f"{path}: not for a pod" for path, _ in walk(pod) if path.split(".")[-1] in NO_POD_MAY]
        for container in spec["containers"] + spec.get("initContainers", []):
            name = f"{where}.{container['name']}"
            context = container.get("securityContext", {})
            wrong += [f"{name}: {key}" for key, value in HARDENED.items() if context.get(key) != value]
            resources = container.get("resources", {})
            request, limit = (resources.get(kind, {}).get("memory") for kind in ("requests", "limits"))
            if request is None or request != limit:
                wrong.append(f"{name}: memory requested {request}, limit {limit}")
            if not {"requests", "limits"} <= set(resources) or any(
                "cpu" not in resources[k] for k in resources
            ):
                wrong.append(f"{name}: cpu not bounded")
    return wrong


def autoscaler_rights(cluster: Tree) -> list[str]:
    """The token of the Kubernetes API is mounted by the autoscaler and by no other container."""
    spec = cluster["spec"]
    options = spec.get("autoscalerOptions", {})
    context = options.get("securityContext", {})
    wrong = [f"autoscaler: {key}" for key, value in HARDENED.items() if context.get(key) != value]
    head = spec["headGroupSpec"]["template"]["spec"]
    tokens = {
        volume["name"]
        for volume in head["volumes"]
        if any("serviceAccountToken" in source for source in volume.get("projected", {}).get("sources", []))
    }
    if not tokens & {mount["name"] for mount in options.get("volumeMounts", [])}:
        wrong.append("autoscaler: no token, it could not scale")
    for container in head["containers"]:
        if tokens & {mount["name"] for mount in container["volumeMounts"]}:
            wrong.append(f"{container['name']}: mounts the autoscaler's token")
    return wrong


def versions(tree: Tree) -> list[str]:
    """Images are this reelmap, Ray is the one of the constraints file."""
    wrong = []
    for path, part in walk(tree):
        key = path.split(".")[-1]
        if key == "image" and isinstance(part, str):
            tag = part.rpartition("/")[2].partition(":")[2]
            if "reelmap" in part and tag.partition("-")[0] != VERSION:
                wrong.append(f"{path}: {part} is not {VERSION}")
            if tag in ("", "latest"):
                wrong.append(f"{path}: {part} is not pinned")
        if key == "rayVersion" and part != ray_pin():
            wrong.append(f"{path}: Ray {part}, constraints.txt has {ray_pin()}")
    return wrong


def cluster_shape(cluster: Tree) -> list[str]:
    spec, wrong = cluster["spec"], []
    if spec.get("authOptions", {}).get("mode") != "token":
        wrong.append("Ray asks for no token")
    if spec["headGroupSpec"]["rayStartParams"].get("num-cpus") != "0":
        wrong.append("work may run on the head")
    if not spec.get("enableInTreeAutoscaling") or "idleTimeoutSeconds" not in spec["autoscalerOptions"]:
        wrong.append("idle workers stay")
    for group in spec["workerGroupSpecs"]:
        low, now, high = group["minReplicas"], group["replicas"], group["maxReplicas"]
        if not 0 <= low <= now <= high or high == 0:
            wrong.append(f"{group['groupName']}: {low} <= {now} <= {high} does not hold")
        container = group["template"]["spec"]["containers"][0]
        gpus = container["resources"]["limits"].get("nvidia.com/gpu")
        if (gpus is not None) != container["image"].endswith("-cuda"):
            wrong.append(f"{group['groupName']}: {gpus} GPUs with {container['image']}")
        if container["resources"]["requests"].get("nvidia.com/gpu") != gpus:
            wrong.append(f"{group['groupName']}: GPUs requested and limited differ")
    return wrong


def retries(tree: Tree) -> list[str]:
    """A run that ends at its deadline leaves the rest for the next night: exit code 3 is no failed pod."""
    if tree["kind"] not in ("CronJob", "RayJob"):
        return []
    spec = tree["spec"]["jobTemplate"]["spec"] if tree["kind"] == "CronJob" else tree["spec"]
    tries = spec.get("backoffLimit")
    return [] if tries == 0 else [f"{tree['kind']}: backoffLimit {tries}"]


def ports(trees: list[Tree]) -> list[str]:
    """Who asks a port asks one that is open: probes, the submitter, the network's rules."""
    cluster = one("RayCluster", trees)
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    head = {port["containerPort"] for port in _container(groups[0])["ports"]}
    wrong = []
    for group in groups:
        container = _container(group)
        open_ports = {port["containerPort"] for port in container["ports"]} | {AGENT_PORT}
        for probe in ("readinessProbe", "livenessProbe"):
            if probe not in container:
                wrong.append(f"{container['name']}: no {probe}")
            elif container[probe]["httpGet"]["port"] not in open_ports:
                wrong.append(f"{container['name']}: {probe} asks a closed port")
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        if missing := mounts - {volume["name"] for volume in group["template"]["spec"]["volumes"]}:
            wrong.append(f"{container['name']}: mounts {missing}, which no volume is")
    job = one("CronJob", trees)["spec"]["jobTemplate"]["spec"]["template"]
    address = next(text for text in _container({"template": job})["args"] if text.startswith("--address="))
    name, _, port = address.removeprefix("--address=http://").partition(":")
    if name != f"{cluster['metadata']['name']}-head-svc" or int(port) not in head:
        wrong.append(f"{address}: not the cluster's service, or a closed port of it")
    tokens = [
        env["valueFrom"]["secretKeyRef"] for env in _container({"template": job})["env"] if "valueFrom" in env
    ]
    if tokens != [{"name": cluster["metadata"]["name"], "key": "auth_token"}]:
        wrong.append(f"{tokens}: not the token that KubeRay makes for the cluster")
    labels = [group["template"]["metadata"]["labels"] for group in groups] + [job["metadata"]["labels"]]
    for policy in (tree for tree in trees if tree["kind"] == "NetworkPolicy"):
        wanted = policy["spec"]["podSelector"]["matchLabels"].items()
        if not any(wanted <= have.items() for have in labels):
            wrong.append(f"{policy['metadata']['name']}: selects no pod")
        for rule in policy["spec"].get("ingress", []):
            for port in (entry["port"] for entry in rule.get("ports", [])):
                if port not in head:
                    wrong.append(f"{policy['metadata']['name']}: lets in to {port}, where nothing listens")
    names = {tree["metadata"]["name"] for tree in trees if tree["kind"] == "ServiceAccount"}
    for tree in trees:
        for where, pod in pods(tree):
            if pod["spec"].get("serviceAccountName") not in names:
                wrong.append(f"{where}: an account that no manifest makes")
    return wrong


def commands(tree: Tree) -> list[str]:
    """Every `reelmap ...` in a manifest parses as one, to its last option."""
    found = []
    for path, part in walk(tree):
        if isinstance(part, dict) and part.get("command") == ["reelmap"]:
            found.append((path, part["args"]))
        if path.endswith("entrypoint") and isinstance(part, str) and part.startswith("reelmap "):
            found.append((path, shlex.split(part)[1:]))
    return [f"{path}: {why}" for path, arguments in found if (why := command_fault(arguments))]


def command_fault(arguments: list[str]) -> str:
    """Why `reelmap ARGUMENTS` could not be parsed; "" when it can. Nothing is run."""
    name, *rest = arguments
    command = main.commands.get(name)
    if command is None:
        return f"reelmap {name}: there is no such command"
    try:
        # Files named in a manifest are there in its container only.
        command.make_context(name, list(rest))
    except click.exceptions.Exit:
        return ""
    except click.ClickException as error:
        return f"reelmap {shlex.join(arguments)}: {error.format_message()}"
    return ""


def python_fault(code: str) -> str:
    """Why a program in a manifest is none; "" when it parses."""
    try:
        ast.parse(code)
    except SyntaxError as error:
        return str(error)
    return ""


def shell_lines(markdown: Path) -> list[str]:
    """The commands in the fenced blocks of a Markdown file, continued lines joined, comments left out."""
    blocks = re.findall(r"^```(?:sh)?\n(.*?)^```", markdown.read_text(), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [
        shlex.join(shlex.split(line, comments=True)) for line in lines if shlex.split(line, comments=True)
    ]


def _container(group: Tree) -> Tree:
    return group["template"]["spec"]["containers"][0]
