"""``chords``: chords whose body was not sent, and what they wait for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from celery_sql_results.chords import header_of, missing_of
from celery_sql_results.cli.changing import changing
from celery_sql_results.cli.desk import Desk, Ending, verb
from celery_sql_results.cli.ids import one_chord
from celery_sql_results.cli.kicking import kick
from celery_sql_results.cli.output import Column
from celery_sql_results.cli.pages import limited
from celery_sql_results.cli.times import DURATION
from celery_sql_results.payload import task_of
from celery_sql_results.rows.queries import ChordQuestions, OpenedChord

__all__ = ["command"]

COLUMNS = (
    *(Column("created", "begun", form="time"), Column("state", "state"), Column("returned", "parts", form="number")),
    *(Column("size", "of", form="number"), Column("body", "body", 100), Column("group_id", "id")),
    Column("why", "why"),
)
FIELDS = (
    *COLUMNS,
    *(Column("sent", "body sent", form="time"), Column("claimed_by", "claimed by")),
    Column("claimed_until", "claimed until", form="time"),
)
MEMBERS = (
    *(Column("position", "position", form="number"), Column("state", "state"), Column("part", "part")),
    *(Column("name", "task", 120), Column("worker", "worker", 140), Column("task_id", "id")),
)
#: Seconds that a chord is given before it is called stuck, unless somebody says otherwise.
PATIENCE = 600.0


@verb("chords", is_list=True, acts="kicks")
@click.argument("group_ids", metavar="[ID]...", nargs=-1)
@click.option("--stuck", is_flag=True, help="Only those that nothing seems to happen to, and why.")
@click.option("--older-than", type=DURATION, metavar="TIME", help="Begun at least so long ago; 10m with --stuck.")
@limited("How many lines, at most.")
@click.option("--kick", "kicks", is_flag=True, help="Send the bodies of these chords, which are complete.")
@click.option("--fail", is_flag=True, help="With --kick: let the bodies fail of those that are not.")
@changing
def command(
    desk: Desk,
    group_ids: tuple[str, ...],
    stuck: bool,
    older_than: float | None,
    limit: int,
    kicks: bool,
    fail: bool,
    **how: bool,
) -> int | None:
    """Chords whose body was not sent, the oldest first: how many of their parts have returned, and what the body is.

    With an ID, which may be shortened: one chord, and its members, those first whose part is missing. Of a member in
    state UNKNOWN nothing is stored: it waits in its queue, or its message was lost.

    A chord is stuck if it is complete, but no process is about to send the body; or if all members that are missing
    have ended or are unknown.

    --kick needs the IDs, and the broker. It refuses a chord that is not complete, and says what is missing.
    """
    questions = ChordQuestions(desk.asked, header_of, missing_of)
    if not questions.are_there:
        raise Ending(f"{desk.backend.database.name} has no tables of chords that this role may read: run upgrade")
    if kicks:
        return _kick(desk, questions, group_ids, fail, **how)
    if group_ids[1:]:
        raise Ending("chords shows one chord at a time")
    if group_ids:
        _show(desk, questions, one_chord(questions, *group_ids), limit)
        return None
    if stuck:
        rows = [_row(*each) for each in questions.stuck(limit, PATIENCE if older_than is None else older_than)]
    else:
        rows = [_row(chord) for chord in questions.opened(limit, older_than or 0)]
    columns = COLUMNS if stuck else COLUMNS[:-1]
    if not desk.out.rows(columns, rows):
        desk.out.note("no such chords")
    return None


def _kick(
    desk: Desk, questions: ChordQuestions, group_ids: tuple[str, ...], fail: bool, yes: bool, dry_run: bool
) -> int:
    if not group_ids:
        raise Ending("which chords? Give their ids: --stuck lists those that need it")
    ids = [one_chord(questions, id_).group_id for id_ in group_ids]
    return kick(desk, ids, yes, dry_run, fail)


def _row(chord: OpenedChord, why: str | None = None) -> dict[str, Any]:
    body = task_of(chord.body)
    return {**vars(chord), "body": body, "why": why}


def _show(desk: Desk, questions: ChordQuestions, chord: OpenedChord, limit: int) -> None:
    found = questions.members([chord]).get(chord.group_id, []) if chord.sent is None else []
    members = [_member(each._asdict()) for each in sorted(found, key=lambda each: not each.is_missing)]
    if desk.out.form == "json":
        desk.out.json({**_row(chord), "members": members})
        return
    if desk.out.form == "table":
        desk.out.fields(_row(chord), FIELDS)
        desk.out.line()
    known = [column for column in MEMBERS if any(member.get(column.key) is not None for member in members)]
    desk.out.rows(known if desk.out.form == "table" else MEMBERS, members[:limit])
    if members[limit:]:
        desk.out.note(f"{len(members) - limit:,} members more: --limit shows them")


def _member(member: Mapping[str, Any]) -> dict[str, Any]:
    is_missing = member["is_missing"]
    return {**member, "part": "missing" if is_missing else "returned", "task_id": member["task_id"] or None}
