"""What a PromQL query asks for: its metrics, each with the labels that it must have.

Not a parser of the whole language: strings and ranges are taken out, what is left is read name by name.
"""

import re
from collections.abc import Iterator

FUNCTIONS = {"sum", "rate", "min", "max", "histogram_quantile", "label_values"}
GROUPINGS = {"by", "on", "ignoring", "without", "group_left", "group_right"}
WORDS = {"and", "or", "unless", "offset", "bool"}
# Prometheus itself gives every series these.
OF_THE_SCRAPE = {"instance", "job"}

_TOKEN = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*|[0-9][0-9.e]*|[{}(),]|=~|!~|!=|==|>=|<=|[-+*/=<>]")


def asked(query: str) -> dict[str, set[str]]:
    """Metric -> labels it is selected by, and the labels of every grouping of the query.

    Raises ValueError for what it cannot read, such as a function that is not in FUNCTIONS.
    """
    bare = re.sub(r"\[[^\]]*\]", "", re.sub(r'"[^"]*"', "", query))
    if left := _TOKEN.sub("", bare).strip():
        raise ValueError(f"cannot read {left!r} in {query}")
    tokens = _TOKEN.findall(bare)
    found: dict[str, set[str]] = {}
    groups: set[str] = set()
    at = 0
    while at < len(tokens):
        token, at = tokens[at], at + 1
        if token in GROUPINGS:
            names, at = _until(tokens, at, ")")
            groups |= names
        elif token in FUNCTIONS or token in WORDS or not re.match(r"[A-Za-z_:]", token):
            continue
        elif tokens[at : at + 1] == ["("]:
            raise ValueError(f"{token} is no function that is known here: {query}")
        else:
            labels = set()
            if tokens[at : at + 1] == ["{"]:
                labels, at = _until(tokens, at, "}")
            found[token] = found.get(token, set()) | labels
    return {metric: labels | groups for metric, labels in found.items()}


def _until(tokens: list[str], at: int, end: str) -> tuple[set[str], int]:
    stop = tokens.index(end, at)
    return {token for token in tokens[at:stop] if re.match(r"[A-Za-z_]", token)}, stop + 1


def queries(dashboard: dict) -> Iterator[tuple[str, str, str]]:
    """Title, query and legend of each line of each panel of a Grafana dashboard."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"], target["legendFormat"]


def of_legend(legend: str) -> set[str]:
    """The labels that a legend shows."""
    return set(re.findall(r"\{\{(\w+)\}\}", legend))
