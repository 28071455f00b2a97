"""What a payload comes to when it is decoded, told before it is."""

from __future__ import annotations

import math
import re
from typing import Any

from kombu.exceptions import DecodeError

from celery_sql_results.boundaries import caught

__all__ = ["BYTES_OF_A_NODE", "JSON", "YAML", "cost_of", "cost_of_yaml"]

#: Bytes that a number, a text or a collection takes at most for itself, but for what is in it.
BYTES_OF_A_NODE = 64
JSON, MSGPACK, YAML = "application/json", "application/x-msgpack", "application/x-yaml"

#: Bytes that stand for a value of its own, or for part of one, and how much each takes: of JSON one in two or three
#: makes an object, of YAML each makes several that remember where they stood.
STRUCTURE: dict[str, tuple[bytes, int]] = {
    JSON: (b'[{,:"', 48),
    MSGPACK: (bytes(range(0x80, 0xC0)) + bytes(range(0xCA, 0xD4)), 64),
    YAML: (b"\n[{,:-?", 1000),
}
#: How deep lists and mappings in brackets may be in one another in YAML, which needs none to write either.
BRACKETS = 50
_BRACKETS = re.compile(rb"[][{}]")
#: Bytes that any other byte becomes: of msgpack, it may be a number in a list.
EACH = {MSGPACK: 10}
#: A text takes as many bytes for each character as its widest one.
WIDEST = 4


def cost_of(data: bytes, content_type: str) -> int:
    """Bytes of what is made of ``data``, and of the text that it is read as."""
    structure, weight = STRUCTURE.get(content_type, (b"", 0))
    each = EACH.get(content_type, 2 if data.isascii() and b"\\u" not in data else 2 * WIDEST)
    return each * len(data) + weight * (len(data) - len(data.translate(None, structure)))


def cost_of_yaml(data: bytes) -> float:
    """Bytes of what is said by aliases; infinite if one stands in what it stands for.

    Raises:
        kombu.exceptions.DecodeError: its brackets are too deep in one another.
    """
    _check_depth(data)
    return _with_aliases(data) if b"*" in data and b"&" in data else 0.0


def _check_depth(data: bytes) -> None:
    """PyYAML looks at all brackets that are open, for each word. Where they may be many, it counts them itself."""
    most = depth = 0
    for found in _BRACKETS.finditer(data):
        depth = max(depth + (1 if found[0] in b"[{" else -1), 0)
        most = max(most, depth)
    if most <= BRACKETS:
        return
    with caught() as failure:
        import yaml

        opens, closes = (yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken), (yaml.FlowSequenceEndToken,)
        depth = 0
        for token in yaml.scan(data, yaml.SafeLoader):
            depth += isinstance(token, opens) - isinstance(token, (*closes, yaml.FlowMappingEndToken))
            if depth > BRACKETS:
                raise DecodeError(f"the row holds YAML that is more than {BRACKETS} deep")
    if isinstance(failure.error, DecodeError):
        raise failure.error


def _with_aliases(data: bytes) -> float:
    """With each alias written out. What is not YAML is told by whoever decodes it."""
    with caught():
        import yaml

        return _expanded(yaml.compose(data, yaml.SafeLoader), {}) * BYTES_OF_A_NODE
    return 0


def _expanded(node: Any, known: dict[int, float]) -> float:
    """How many nodes there are, each counted as often as it is there: mappings copy what they merge."""
    if not isinstance(node.value, list):
        return 1 + len(node.value) // BYTES_OF_A_NODE
    if id(node) not in known:
        known[id(node)] = math.inf
        parts = (part for item in node.value for part in (item if isinstance(item, tuple) else (item,)))
        known[id(node)] = 1 + sum(_expanded(part, known) for part in parts)
    return known[id(node)]
