"""``retry``: tasks are sent again, with what they were called with."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import click
from celery import states
from kombu.exceptions import EncodeError, SerializerNotInstalled

from celery_sql_results.boundaries import caught
from celery_sql_results.cli.calls import Call, Refused, broker, call_of, known_tasks
from celery_sql_results.cli.changing import agreed, changing, ended, may, through
from celery_sql_results.cli.desk import REFUSED, Desk, Ending, verb
from celery_sql_results.cli.filters import filters
from celery_sql_results.cli.ids import whole_id
from celery_sql_results.cli.output import Column
from celery_sql_results.cli.targets import OpenChords, Targets, chosen
from celery_sql_results.cli.times import DURATION
from celery_sql_results.foreign import shown
from celery_sql_results.models import utc_now
from celery_sql_results.payload import Readable
from celery_sql_results.rows import Row
from celery_sql_results.rows.queries import Filter
from celery_sql_results.rows.resending import CLAIMED, Claim, Resending, note_of

__all__ = ["command"]

COLUMNS = (
    Column("state", "state"), Column("name", "task"), Column("task_id", "id"), Column("queue", "queue"),
    Column("sent_as", "new id", 80), Column("refused", "refused because"),
)  # fmt: skip
#: The states of what is sent again without being asked for. A task in RETRY, Celery itself sends again.
FAILED = (states.FAILURE, states.REVOKED)
#: The states in which a task keeps its id. Workers remember the ids that were revoked and run them no more, and a
#: SUCCESS is never replaced.
NEW_IDS = (states.REVOKED, states.SUCCESS)
#: What is raised before a message is published.
NOT_SENT = (EncodeError, SerializerNotInstalled)
#: Results that are looked at at once.
PAGE = 100


@dataclass(frozen=True)
class Wishes:
    """How tasks are to be sent again."""

    to_queue: str | None
    countdown: float | None
    new_id: bool | None
    resend: bool
    limit: int | None
    skip: bool


@verb("retry", acts=True)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All that have failed or were revoked.")
@click.option("--new-id/--keep-id", "new_id", default=None, help="Under another id, or the same; see above.")
@click.option("--to-queue", metavar="NAME", help="Send to this queue, not to where it came from.")
@click.option("--countdown", type=DURATION, metavar="TIME", help="Let workers wait so long: 30s, 5m.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Send so many at most.")
@click.option("--skip", is_flag=True, help="Leave out what cannot be sent again, and send the others.")
@click.option("--resend", is_flag=True, help="Only what was claimed before, and perhaps not sent: it may run twice.")
@changing
@filters
def command(
    desk: Desk,
    which: Filter,
    ids: Sequence[str],
    everything: bool,
    dry_run: bool,
    yes: bool,
    **wishes: Any,
) -> int:
    """Send tasks again, with the arguments that are stored of them (result_extended).

    By default, tasks that have failed or were revoked; others if --state names them. A task that has failed keeps its
    id: who has it learns of the new outcome, and its state is RETRY until a worker takes it. One that was revoked or
    has succeeded gets a new id: workers run no id that was revoked, and a SUCCESS is never replaced. What followed the
    task (the rest of a chain, callbacks) is not stored and does not follow again; nor are stamps and headers. If the
    app knows the task, that has its own priority, expiry and time limits.

    Each is claimed before it is sent, so that it is sent once, however often and by however many this is called. After
    a crash in between, or if the broker did not say whether it has the task, show says so of the result, and --resend
    sends it, perhaps for the second time.
    """
    how = Wishes(**wishes)
    chosen(ids, which, everything or (how.resend and not ids))
    default = (*FAILED, states.RETRY) if how.resend else FAILED
    which = which if which.states else replace(which, states=default)
    whole = [whole_id(desk, id_) for id_ in ids]
    targets = Targets(desk.asked, which, whole)
    again = _Again(desk, targets, how, bool(ids))
    found = again.found()
    if again.nameless:
        desk.out.note(f"{_tasks(len(again.nameless))} left out: no name is stored (as of the body of a failed chord)")
    missed = set(whole) - {row["task_id"] for row in found}
    _refuse(desk, found, missed - again.left, which, how.skip or dry_run)
    again.total = sum(row["refused"] is None for row in found)
    if dry_run or not again.total:
        return _dry(desk, found, again, dry_run)
    may(desk, "UPDATE", desk.backend.database.models.task)
    agreed(f"send {_tasks(again.total)} again", yes)
    broker(desk)
    done, stopped = through(desk, "sending", again.total, again.steps())
    summary = {"sent": done, "counted": again.total, "refused": len(found) - again.total, "left": len(again.left)}
    return ended(desk, f"sent {done:,} of {_tasks(again.total)} again", stopped, **summary)


class _Again:
    """What is sent again."""

    def __init__(self, desk: Desk, targets: Targets, wishes: Wishes, are_named: bool) -> None:
        self._desk, self._targets, self._wishes, self._are_named = desk, targets, wishes, are_named
        self._rows = Resending(desk.asked)
        self._chords = OpenChords(desk)
        self._read = Readable(desk.backend.settings.serializer)
        self._tasks = known_tasks(desk)
        #: How many can be sent, the ids of those that were sent before or are claimed, and of those that nobody named
        #: and that have no name themselves, as bodies of chords that failed.
        self.total, self.left, self.nameless = 0, set[str](), set[str]()

    def _calls(self) -> Iterator[tuple[Row, Call | str]]:
        """Each task with its call, or with why there is none."""
        for page in self._targets.pages():
            for at in range(0, len(page), PAGE):
                rows = sorted(self._rows.calls([row["id"] for row in page[at : at + PAGE]]), key=lambda row: row["id"])
                chords = self._chords.of(rows)
                for row in reversed(rows):
                    if self._is_meant(row):
                        yield row, self._call(row, chords.get(row["task_id"]))

    def _is_meant(self, row: Row) -> bool:
        """Whether a task is to be sent, as far as its claims tell: what was sent before is not sent once more."""
        if not row["name"] and not self._are_named:
            self.nameless.add(row["task_id"])
            return False
        note = note_of(row)
        if self._wishes.resend:
            is_meant = note is not None and (self._are_named or note.startswith(CLAIMED))
        else:
            is_meant = note is None
        if not is_meant:
            self.left.add(row["task_id"])
        return is_meant

    @property
    def why_left(self) -> str:
        if self._wishes.resend:
            return "not claimed before, or sent since (without --resend, what was not claimed is sent)"
        return "sent again before, or claimed (see show, and --resend)"

    def _call(self, row: Row, chord: str | None) -> Call | str:
        if chord is not None:
            return f"it is a member of the chord {shown(chord)}, which would not count it: see chords --kick"
        if row["status"] == states.SUCCESS and self._wishes.new_id is False:
            return "it has succeeded, and what comes of the same id would not be stored: leave --keep-id out"
        try:
            return call_of(row, self._read, self._tasks)
        except Refused as refused:
            return str(refused)

    def found(self) -> list[dict[str, object]]:
        """What there is to send, and what cannot be sent, as it is shown."""
        rows: list[dict[str, object]] = []
        for row, call in self._calls():
            refused = call if isinstance(call, str) else None
            known = {"task_id": row["task_id"], "state": row["status"], "name": row["name"], "queue": row["queue"]}
            sent_as = "another" if self._gets_new_id(row) else "the same"
            rows.append({**known, "sent_as": None if refused else sent_as, "refused": refused})
            if self._wishes.limit is not None and sum(each["refused"] is None for each in rows) >= self._wishes.limit:
                break
        return rows

    def _gets_new_id(self, row: Row) -> bool:
        given = self._wishes.new_id
        return row["status"] in NEW_IDS if given is None else given

    def steps(self) -> Iterator[int]:
        left = self.total
        for row, call in self._calls():
            if isinstance(call, str):
                continue
            task_id = self._send(row, call)
            if task_id is not None:
                left -= 1
                self._tell(row, task_id)
            yield int(task_id is not None)
            if not left:
                return

    def _send(self, row: Row, call: Call) -> str | None:
        """Claim and send a task, and return the id under which it was sent; ``None`` if somebody else has it."""
        is_new = self._gets_new_id(row)
        task_id = str(uuid.uuid4()) if is_new else row["task_id"]
        who = f"at {_now()} UTC by process {os.getpid()} on {socket.gethostname()} ({uuid.uuid4().hex[:8]})"
        claim = self._rows.claim(row, f"{who}, not sent yet: see retry --resend", not is_new)
        if claim is None:
            return None
        with caught() as failure:  # a transport may raise anything
            call.send(self._desk.app, task_id, self._wishes.to_queue, self._wishes.countdown)
        if failure.error is not None:
            self._failed(claim, failure.error)
        self._rows.sent(claim, f"sent again {who}" + (f" as {task_id}" if is_new else ""))
        return task_id

    def _failed(self, claim: Claim, error: BaseException) -> NoReturn:
        """What could not be written was not sent. Of all else, who knows: the broker may have it, and the answer not.

        Raises:
            Ending: always.
        """
        task, why = shown(claim.row["task_id"]), shown(f"{type(error).__name__}: {error}")
        if not isinstance(error, NOT_SENT):
            told = f"whether task {task} was sent is not known ({why}): it stays claimed"
            raise Ending(f"{told}. retry {task} --resend sends it, perhaps for the second time") from error
        is_back = self._rows.give_up(claim)
        how = "it is as it was before" if is_back else "but somebody has it all the same"
        raise Ending(f"task {task} could not be sent ({why}): {how}") from error

    def _tell(self, row: Row, task_id: str) -> None:
        out = self._desk.out
        if out.form == "json":
            out.json({"task_id": row["task_id"], "name": row["name"], "sent_as": task_id})
        elif task_id != row["task_id"]:
            out.line(f"{row['task_id']} {row['name']}: sent as {task_id}")
        else:
            out.line(f"{row['task_id']} {row['name']}: sent")


def _now() -> str:
    return utc_now().isoformat(sep=" ", timespec="seconds")


def _tasks(number: int) -> str:
    return f"{number:,} task{'s' * (number != 1)}"


def _refuse(desk: Desk, found: list[dict[str, object]], missed: set[str], which: Filter, goes_on: bool) -> None:
    """Name what cannot be sent again, and do nothing if that was not asked for."""
    allowed = " or ".join(which.states)
    reasons = [(f"{row['task_id']} {row['name'] or ''}".rstrip(), row["refused"]) for row in found if row["refused"]]
    reasons += [(id_, f"it is not {allowed}, or no other filter means it (see --state)") for id_ in sorted(missed)]
    if not reasons:
        return
    for task, reason in reasons:
        desk.out.note(f"{shown(task)}: {reason}")
    if not goes_on:
        raise Ending(f"{_tasks(len(reasons))} cannot be sent again. Nothing was done; --skip sends the others", REFUSED)


def _dry(desk: Desk, found: list[dict[str, object]], again: _Again, dry_run: bool) -> int:
    left = len(again.left)
    if desk.out.form == "json":
        for row in found:
            desk.out.json(row)
        summary = {"sent": 0, "counted": again.total, "refused": len(found) - again.total, "left": left}
        desk.out.json({**summary, "dry_run": dry_run})
    elif again.total:
        desk.out.rows(COLUMNS, found)
        desk.out.line(f"would send {_tasks(again.total)} again")
    if left:
        desk.out.note(f"{_tasks(left)} left: {again.why_left}")
    if not again.total:
        desk.out.note("nothing to send again")
    return 0
