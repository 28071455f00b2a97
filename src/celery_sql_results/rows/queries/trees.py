"""The workflow of a task: what began it, and what each task of it has sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from celery_sql_results.rows.tasks import Row

from .asking import Asked
from .results import Results

__all__ = ["Node", "Tree", "Trees"]

#: Tasks of a workflow that are read at most, levels below the first, and steps that lead from one to the next.
MOST, DEEPEST, STEPS = 5_000, 200, 200
#: Bytes of the payload of what a task has sent that are read, and how many of these at once.
READ, AT_ONCE = 200_000, 100
#: How much earlier than it was sent a task may have ended, by clocks that do not agree.
DISAGREE: Final = timedelta(hours=1)

#: The tasks that a row has sent, with the group that each is in, if that is told.
SentBy = Callable[[Row], Iterable[tuple[str, str | None]]]


@dataclass
class Node:
    """A task of a workflow, or a group of tasks.

    Attributes:
        id: of the task, or of the group; of what a client has sent in pieces, ``None``.
        kind: ``task``, ``group`` or ``chord``.
        row: what is stored of a task, if anything is.
        nodes: what it has sent, or the members.
    """

    id: str | None
    kind: str
    row: Row | None = None
    nodes: list[Node] = field(default_factory=list)


@dataclass
class Tree:
    """A workflow; ``is_whole`` unless it was too large."""

    root: Node
    is_whole: bool


class Trees:
    """The workflows, as people ask for them.

    Args:
        asked: the database.
        sent_by: what a row with its ``children`` has sent.
    """

    def __init__(self, asked: Asked, sent_by: SentBy) -> None:
        self._asked, self._sent_by = asked, sent_by
        self._task = asked.models.task

    def of(self, task_id: str) -> Tree | None:
        """The workflow that a task belongs to; ``None`` if nothing is stored of the task.

        Tasks that belong to one group belong together, also where a client has sent them, who is no task. What was
        sent and has no row is there as well, as far as who has sent it has ended.

        Raises:
            TooLong: the database did not answer in time.
        """
        walk = _Walk()
        self._read(walk, [task_id])
        asked = walk.rows.get(task_id)
        if asked is None:
            return None
        self._read_relatives(walk, asked)
        self._read_sent(walk)
        return _tree(walk, asked, self._chords(walk))

    # -- what is read --------------------------------------------------------------------------------------------

    def _read_relatives(self, walk: _Walk, asked: Row) -> None:
        """All that have one root; and of a group whose members are roots themselves, what has these."""
        roots = {asked["root_id"] or asked["task_id"]}
        self._read(walk, roots)
        group_id = next((walk.rows[id_]["group_id"] for id_ in roots if id_ in walk.rows), None)
        if group_id:
            members = self._find(walk, "group_id", [group_id], _since(walk, roots))
            roots |= {row["root_id"] or row["task_id"] for row in members}
        self._find(walk, "root_id", sorted(roots), _since(walk, roots))

    def _read_sent(self, walk: _Walk) -> None:
        """What the rows have sent, and of old rows, which name no root, what that has sent, step by step."""
        new = list(walk.rows)
        for _ in range(STEPS):
            if not new or not walk.is_whole:
                return
            self._read_children(walk, new)
            unread = [id_ for id_ in walk.senders if id_ not in walk.looked_for]
            before = set(walk.rows)
            self._read(walk, unread)
            new = [id_ for id_ in walk.rows if id_ not in before]

    def _read_children(self, walk: _Walk, task_ids: Sequence[str]) -> None:
        asked = self._asked
        children, content_type = asked.column(self._task, "children"), asked.column(self._task, "content_type")
        short = asked.impl.reads.head(children, READ).label("children")
        size = asked.impl.size_of(children).label("size_of_children")
        found = sa.select(self._task.c.task_id, short, size, content_type)
        found = found.where(asked.impl.one_of(self._task.c.task_id), children.is_not(None))
        for at in range(0, len(task_ids), AT_ONCE):
            for row in asked.batches(found, task_ids[at : at + AT_ONCE]):
                for id_, group_id in self._sent_by(row):
                    walk.add_sent(row["task_id"], id_, group_id)

    def _read(self, walk: _Walk, task_ids: Iterable[str]) -> None:
        """The rows of tasks."""
        wanted = [id_ for id_ in task_ids if id_ not in walk.looked_for]
        walk.looked_for.update(wanted)
        walk.add(self._asked.batches(self._rows.where(self._asked.impl.one_of(self._task.c.task_id)), wanted))

    def _find(self, walk: _Walk, name: str, ids: Sequence[str], since: datetime | None) -> list[Row]:
        """The rows that have one of some ids in a column. What is done lies in the index of the time.

        That of workflows, where there is one, leaves out the task that has begun each, which is known by its own id.
        """
        if not self._asked.has(self._task, name):
            return []
        done, found = self._task.c.date_done, list[Row]()
        mine = self._rows.where(self._asked.impl.one_of(self._task.c[name])).limit(MOST)
        if name == "root_id":
            mine = mine.where(self._task.c.root_id != self._task.c.task_id)
        ended = done.is_not(None) if since is None else done >= since
        for each in (mine.where(ended).order_by(done), mine.where(done.is_(None))):
            found += self._asked.batches(each, ids)
        walk.add(found)
        walk.looked_for.update(row["task_id"] for row in found)
        return found

    def _chords(self, walk: _Walk) -> set[str]:
        """Which groups are headers of chords, as far as that is known."""
        chords, asked = self._asked.models.chords, self._asked
        ids = sorted({row["group_id"] for row in walk.rows.values() if row["group_id"]} | set(walk.groups.values()))
        if not asked.has(chords, "group_id") or not ids:
            return set()
        found = sa.select(chords.c.group_id).where(asked.impl.one_of(chords.c.group_id))
        return {row["group_id"] for row in asked.batches(found, ids)}

    @property
    def _rows(self) -> sa.Select[Any]:
        return sa.select(*Results(self._asked).listed)


class _Walk:
    """What is known so far of a workflow.

    Attributes:
        rows: by the ids of their tasks.
        senders: who has sent a task, and ``groups`` the group that it is in, as the rows of the senders tell.
        looked_for: the tasks whose rows were asked for.
    """

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.senders: dict[str, str] = {}
        self.groups: dict[str, str] = {}
        self.looked_for: set[str] = set()
        self.is_whole = True

    def add(self, rows: Iterable[Row]) -> None:
        """Some rows, as long as there are not too many."""
        for row in rows:
            if len(self.rows) < MOST:
                self.rows[row["task_id"]] = row
            else:
                self.is_whole = self.is_whole and row["task_id"] in self.rows

    def add_sent(self, sender: str, task_id: str, group_id: str | None) -> None:
        """A task that another has sent."""
        if len(self.senders) >= MOST:
            self.is_whole = False
        elif task_id != sender:
            self.senders.setdefault(task_id, sender)
            if group_id is not None:
                self.groups.setdefault(task_id, group_id)


def _since(walk: _Walk, roots: Iterable[str]) -> datetime | None:
    """A time before which nothing of what begins with some tasks can have ended, if that is known."""
    rows = [walk.rows.get(id_, {}) for id_ in roots]
    times = [row.get("date_queued") or row.get("date_started") for row in rows]
    known = [time for time in times if isinstance(time, datetime)]
    return min(known) - DISAGREE if len(known) == len(times) else None


# -- what is made of it ------------------------------------------------------------------------------------------


def _tree(walk: _Walk, asked: Row, chords: set[str]) -> Tree:
    """Each task stands once, whatever the rows say: what leads to no root is put below the first."""
    ids = list(dict.fromkeys([*walk.rows, *walk.senders]))
    below: dict[str | None, list[str]] = {}
    for id_ in sorted(ids, key=lambda each: _order(walk.rows.get(each))):
        below.setdefault(_parent(walk, id_), []).append(id_)
    first = asked["root_id"] or asked["task_id"]
    root, seen = Node(None, "client"), set[str]()
    is_whole = walk.is_whole and _grow(root, [first, *below.get(None, ())], below, walk, seen)
    rest = [id_ for id_ in ids if id_ not in seen]
    while rest:  # they are above one another, or too deep
        is_whole = _grow(root, rest[:1], below, walk, seen) and is_whole
        rest = [id_ for id_ in rest if id_ not in seen]
    _group(root, walk, chords)
    return Tree(root.nodes[0] if len(root.nodes) == 1 else root, is_whole)


def _parent(walk: _Walk, task_id: str) -> str | None:
    row = walk.rows.get(task_id)
    by_row = row["parent_id"] if row else None
    known = by_row if by_row in walk.rows and by_row != task_id else walk.senders.get(task_id)
    return known if known != task_id else None


def _order(row: Row | None) -> tuple[bool, datetime, int]:
    """When it was sent or begun; what has no row comes last."""
    when = row and (row["date_queued"] or row["date_started"] or row["date_done"])
    return row is None, when if isinstance(when, datetime) else datetime.max, row["id"] if row else 0  # noqa: DTZ901


def _grow(root: Node, first: Sequence[str], below: dict[str | None, list[str]], walk: _Walk, seen: set[str]) -> bool:
    """Put tasks and what is below them, level by level, below a node; ``False`` if there is more, too deep."""
    level = [(root, id_) for id_ in first]
    for _ in range(DEEPEST):
        following: list[tuple[Node, str]] = []
        for parent, id_ in level:
            if id_ in seen:
                continue
            seen.add(id_)
            node = Node(id_, "task", walk.rows.get(id_))
            parent.nodes.append(node)
            following += [(node, each) for each in below.get(id_, ())]
        level = following
    return not level


def _group(root: Node, walk: _Walk, chords: set[str]) -> None:
    """Put those that one task has sent, and that belong to one group, below a node of their own."""
    left = [root]
    for node in left:
        left += node.nodes
        groups: dict[str, Node] = {}
        nodes: list[Node] = []
        for each in node.nodes:
            id_ = (each.row and each.row["group_id"]) or walk.groups.get(each.id or "")
            if id_ is None:
                nodes.append(each)
                continue
            if id_ not in groups:
                groups[id_] = Node(id_, "chord" if id_ in chords else "group")
                nodes.append(groups[id_])
            groups[id_].nodes.append(each)
        node.nodes = nodes
