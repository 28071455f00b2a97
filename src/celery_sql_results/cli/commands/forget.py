"""``forget``: results are deleted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import click
import sqlalchemy as sa
from celery import states

from celery_sql_results.cli.changing import agreed, changing, ended, may, through
from celery_sql_results.cli.desk import UNKNOWN, Desk, Ending, verb
from celery_sql_results.cli.filters import filters
from celery_sql_results.cli.ids import whole_id
from celery_sql_results.cli.output import Column
from celery_sql_results.cli.targets import OpenChords, Targets, chosen
from celery_sql_results.foreign import shown
from celery_sql_results.ids import asked_id
from celery_sql_results.rows import Row
from celery_sql_results.rows.chosen import delete_chosen
from celery_sql_results.rows.queries import Filter

__all__ = ["command"]

COUNTS = (Column("state", "state"), Column("name", "task"), Column("results", "results", form="number"))
#: How many members of chords are named.
NAMED = 3


@verb("forget", acts=True)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--group-result", "groups", multiple=True, metavar="ID", help="The saved result of a group.")
@click.option("--all", "everything", is_flag=True, help="All results that are finished.")
@click.option("--force", is_flag=True, help="Also members of chords whose body was not sent: the body may never be.")
@changing
@filters
def command(
    desk: Desk,
    which: Filter,
    ids: Sequence[str],
    groups: Sequence[str],
    everything: bool,
    force: bool,
    dry_run: bool,
    yes: bool,
) -> int:
    """Delete results: those with such IDs, or those that meet all filters.

    Results that are not finished are only deleted if their ID or --state names them. Members of a chord whose body was
    not sent are left, unless --force is given. What has changed since it was counted is left, too.

    Members of chords that are not in the table of chords cannot be told, and are deleted: of chords that db+ has begun,
    or apps with database_native_chords = False.
    """
    if not groups:
        chosen(ids, which, everything)
    are_tasks_meant = bool(ids) or everything or which != Filter()
    task_ids, group_ids = _told_apart(desk, ids, groups)
    if not task_ids and not which.states:
        which = replace(which, states=tuple(sorted(states.READY_STATES)))
    targets = Targets(desk.asked, which, task_ids) if are_tasks_meant and (task_ids or not ids) else None
    forgetting = _Forgetting(desk, targets, None if force else OpenChords(desk), group_ids)
    forgetting.count(are_named=bool(task_ids))
    if dry_run or not forgetting.total:
        return forgetting.dry(dry_run)
    models = desk.backend.database.models
    may(desk, "DELETE", models.task, *([models.group] if group_ids else []))
    agreed(f"delete {forgetting}", yes)
    done, stopped = through(desk, "deleting", forgetting.total, forgetting.steps())
    summary = {"deleted": done, "counted": forgetting.total, "left": len(forgetting.left)}
    return ended(desk, f"deleted {done:,} of {forgetting}", stopped, **summary)


def _told_apart(desk: Desk, ids: Sequence[str], groups: Sequence[str]) -> tuple[list[str], list[str]]:
    """The ids of tasks, and those of groups: an id of no task may be a group's."""
    group_ids = [_group(desk, id_, must_be=True) or "" for id_ in groups]
    task_ids = []
    for id_ in ids:
        try:
            task_ids.append(whole_id(desk, id_))
        except Ending as unknown:
            found = _group(desk, id_) if unknown.exit_code == UNKNOWN else None
            if found is None:
                raise
            group_ids.append(found)
    return list(dict.fromkeys(task_ids)), list(dict.fromkeys(group_ids))


def _group(desk: Desk, text: str, must_be: bool = False) -> str | None:
    id_, group = asked_id(text), desk.asked.models.group.c
    found = [] if id_ is None else desk.asked.all(sa.select(group.taskset_id).where(group.taskset_id == id_))
    if not found and must_be:
        raise Ending(f"no group is saved under the id {shown(text)!r}", UNKNOWN)
    return found[0]["taskset_id"] if found else None


class _Forgetting:
    """What is deleted: the results that are meant, but members of open chords, and groups."""

    def __init__(
        self, desk: Desk, targets: Targets | None, chords: OpenChords | None, group_ids: Sequence[str]
    ) -> None:
        self._desk, self._targets, self._chords, self._group_ids = desk, targets, chords, group_ids
        #: How many results there are of each state and task, and the members that are left, with their chords.
        self.counts: Counter[tuple[str, str]] = Counter()
        self.left: dict[str, str] = {}

    @property
    def total(self) -> int:
        return sum(self.counts.values()) + len(self._group_ids)

    def __str__(self) -> str:
        parts = [(sum(self.counts.values()), "result"), (len(self._group_ids), "group result")]
        told = [f"{number:,} {name}{'s' * (number != 1)}" for number, name in parts if number]
        return " and ".join(told) or "0 results"

    def _pages(self) -> Iterator[list[Row]]:
        for rows in self._targets.pages() if self._targets else ():
            members = self._chords.of(rows) if self._chords else {}
            self.left |= members
            yield [row for row in rows if row["task_id"] not in members]

    def count(self, are_named: bool) -> None:
        for rows in self._pages():
            self.counts.update((row["status"] or "", row["name"] or "") for row in rows)
        if not self.left:
            return
        some = ", ".join(f"{shown(id_)} of {shown(chord)}" for id_, chord in list(self.left.items())[:NAMED])
        told = f"{len(self.left):,} are members of chords whose body was not sent ({some})"
        if are_named:
            raise Ending(f"{told}: --force deletes them as well. Nothing was done")
        self._desk.out.note(f"{told}: they are left, unless --force is given")

    def steps(self) -> Iterator[int]:
        database = self._desk.backend.database
        engine, impl, models = database.engine, database.impl, database.models
        for rows in self._pages():
            yield from delete_chosen(engine, impl, models.task, rows)
        for id_ in self._group_ids:
            with impl.connect(engine) as connection:
                these = sa.delete(models.group).where(models.group.c.taskset_id == id_)
                deleted = connection.execute(these).rowcount
            yield deleted

    def dry(self, dry_run: bool) -> int:
        """Say what would be done."""
        found = [{"state": key[0], "name": key[1], "results": count} for key, count in self.counts.most_common()]
        summary = {"deleted": 0, "counted": self.total, "left": len(self.left), "dry_run": dry_run}
        if self._desk.out.form == "json":
            self._desk.out.json({**summary, "results": found})
        elif self.total:
            self._desk.out.rows(COUNTS, found)
            self._desk.out.line(f"would delete {self}")
        else:
            self._desk.out.note("no such results: nothing to delete")
        return 0
