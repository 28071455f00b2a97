"""``tree``: the workflow that a task belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
from celery import states

from celery_sql_results.cli.desk import UNKNOWN, Desk, verb
from celery_sql_results.cli.filters import as_row
from celery_sql_results.cli.ids import whole_id
from celery_sql_results.cli.times import took
from celery_sql_results.payload import Readable, Sent, sent
from celery_sql_results.rows import Row
from celery_sql_results.rows.queries import Node, Trees

__all__ = ["command"]


@verb("tree")
@click.argument("task_id", metavar="ID")
def command(desk: Desk, task_id: str) -> int:
    """The workflow of the task with this ID, which may be shortened: what began it, and what each task has sent.

    An arrow points to the task. Of a task that is PENDING nothing is stored: it waits in its queue, or runs, or its
    result was forgotten or has expired. With --json, each node has those below it as "nodes".
    """
    id_, read = whole_id(desk, task_id), Readable(desk.backend.settings.serializer)

    def sent_by(row: Row) -> Iterator[Sent]:
        return sent(read(row, "children"))

    found = Trees(desk.asked, sent_by).of(id_)
    if found is None:  # deleted just now
        return UNKNOWN
    if desk.out.form == "json":
        desk.out.json({**_as_json(found.root, id_), "is_whole": found.is_whole})
    else:
        for before, node in _lines(found.root):
            desk.out.line(f"{before}{_told(node)}{'  <──' if node.id == id_ and node.kind == 'task' else ''}")
    if not found.is_whole:
        desk.out.note("the workflow is too large to be shown whole, or too deep to be shown in one piece")
    return 0


def _shown(node: Node) -> dict[str, Any]:
    if node.row is not None:
        return as_row(node.row)
    return {"task_id": node.id, "state": states.PENDING} if node.kind == "task" else {"group_id": node.id}


def _told(node: Node) -> str:
    """A node in a line."""
    if node.kind == "client":
        return "sent by a client"
    if node.kind != "task":
        return f"{node.kind} of {len(node.nodes):,}  {node.id}"
    row = _shown(node)
    words = (row["state"], row.get("name"), took(row.get("runtime")), node.id, row.get("error"))
    return "  ".join(word for word in words if word)


def _lines(root: Node) -> Iterator[tuple[str, Node]]:
    """The nodes from above to below, each with the branches that stand before it."""
    left = [("", "", root)]
    while left:
        own, before, node = left.pop()
        yield own, node
        for each in reversed(node.nodes):
            is_last = each is node.nodes[-1]
            left.append((before + ("└─ " if is_last else "├─ "), before + ("   " if is_last else "│  "), each))


def _as_json(root: Node, id_: str) -> dict[str, Any]:
    """Nodes in one another. A tree is no deeper than Python's own JSON allows for."""
    top: dict[str, Any] = {}
    left = [(root, top)]
    for node, made in left:
        made |= {"kind": node.kind, **_shown(node), "is_asked": node.id == id_ and node.kind == "task"}
        made["nodes"] = [{} for _ in node.nodes]
        left += zip(node.nodes, made["nodes"], strict=True)
    return top
