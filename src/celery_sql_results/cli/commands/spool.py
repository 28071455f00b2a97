"""``spool``: what waits on this host until the database takes it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from celery_sql_results.cli.changing import agreed, changing, ended, through
from celery_sql_results.cli.desk import UNKNOWN, Desk, Ending, verb
from celery_sql_results.cli.output import Column
from celery_sql_results.foreign import shown
from celery_sql_results.payload import NotReadable, Readable
from celery_sql_results.writing.spool import Directory, Unreadable, loads

__all__ = ["command"]

FIELDS = (
    *(Column("database", "database"), Column("tables", "tables"), Column("path", "directory")),
    *(Column("entries", "waiting", form="number"), Column("since", "since", form="time")),
    *(Column("bytes", "bytes", form="number"), Column("limit", "limit"), Column("rejected", "rejected", form="number")),
)
SIBLINGS = (
    *(Column("owner", "also waiting, for"), Column("entries", "entries", form="number")),
    *(Column("since", "since", form="time"), Column("path", "directory")),
)
REJECTED = (Column("rejected", "rejected"), Column("since", "since", form="time"), Column("reason", "because"))
ENTRIES = (*(Column("name", "entry"), Column("kind", "kind"), Column("state", "state")), Column("id", "id"))
#: Seconds of one slice of a replay, for which nothing may happen before it is given up, and between two looks.
SLICE, PATIENCE, PAUSE = 1.0, 30.0, 0.2
#: Rejected entries that are told of, and characters of a value that are shown.
TOLD, SHOWN = 20, 2_000
#: Columns whose values are payloads.
PAYLOADS = ("result", "args", "kwargs", "stamps", "children")


@verb("spool", acts="replay", spools=True)
@click.option("--spool-dir", metavar="PATH", help="As in database_spool_dir.")
@click.option("--list", "is_list", is_flag=True, help="List the entries.")
@click.option("--show", "name", metavar="NAME", help="Show an entry, or one that was rejected.")
@click.option("--replay", is_flag=True, help="Store what waits, now.")
@changing
def command(
    desk: Desk, spool_dir: str | None, is_list: bool, name: str | None, replay: bool, dry_run: bool, yes: bool
) -> int:
    """What waits on this host until the database takes it: for which database, how many results, since when.

    Only --replay needs the database. It must be run by the user of the workers, whose directory it is.
    """
    directory = _directory(desk, spool_dir)
    if name is not None:
        return _show(desk, directory, name)
    if replay:
        return _replay(desk, directory, dry_run, yes)
    if is_list:
        desk.out.rows(ENTRIES, (_entry(desk, directory, each) for each in directory.names()))
        return 0
    _tell(desk, directory)
    return 0


def _directory(desk: Desk, spool_dir: str | None) -> Directory:
    """The spool of this database.

    Raises:
        Ending: there is none.
    """
    conf = desk.app.conf
    if spool_dir is not None:
        conf.database_spool_dir = spool_dir
    conf.database_create_tables_at_setup = False
    if not conf.get("database_spool_dir"):
        raise Ending("no spool is set here: database_spool_dir is where results wait while the database is away")
    if not Path(conf.database_spool_dir).exists():  # which a backend would make
        raise Ending(f"nothing was ever kept in {shown(conf.database_spool_dir)}: there is no such directory")
    found = desk.backend.spool
    if not isinstance(found, Directory):
        raise Ending("database_spool_dir is not set for this backend")
    return found


# -- looking -----------------------------------------------------------------------------------------------------


def _tell(desk: Desk, directory: Directory) -> None:
    names, rejected, models = directory.names(), directory.rejected(), desk.backend.models
    told = {
        "database": desk.backend.as_uri(),
        "tables": f"{models.task.name}, {models.group.name}",
        "path": str(directory.path),
        "entries": len(names),
        "since": _since(directory, names[0]) if names else None,
        "bytes": directory.used(),
        "limit": "none" if directory.max_bytes == float("inf") else f"{directory.max_bytes:,.0f}",
        "rejected": len(rejected),
    }
    siblings = [
        {**each._asdict(), "path": str(each.path), "since": _naive(each.since)} for each in directory.siblings(0)
    ]
    refused = [_refused(desk, directory, name) for name in rejected[:TOLD]]
    if desk.out.form == "json":
        desk.out.json({**told, "siblings": siblings, "rejected_entries": refused})
        return
    desk.out.fields(told, FIELDS)
    for columns, rows in ((SIBLINGS, siblings), (REJECTED, refused)):
        if rows:
            desk.out.line()
            desk.out.rows(columns, rows)


def _naive(time_: datetime) -> datetime:
    return time_.astimezone(timezone.utc).replace(tzinfo=None)


def _since(directory: Directory, name: str) -> datetime | None:
    try:
        return _naive(directory.since(name))
    except FileNotFoundError:  # stored just now
        return None


def _refused(desk: Desk, directory: Directory, name: str) -> dict[str, Any]:
    """A rejected entry, and why: as far as the entry itself tells."""
    try:
        loads(directory.read(name), desk.backend.models)
        reason = "the database refused it: the worker's log has told why"
    except (Unreadable, OSError) as error:
        reason = str(error)
    return {"rejected": name, "since": _since(directory, name), "reason": reason}


def _entry(desk: Desk, directory: Directory, name: str) -> dict[str, Any]:
    try:
        entry = loads(directory.read(name), desk.backend.models)
    except (Unreadable, OSError) as error:
        return {"name": name, "kind": f"unreadable ({error})", "state": None, "id": None}
    id_ = entry.row.get("task_id") or entry.row.get("taskset_id")
    return {"name": name, "kind": entry.kind, "state": entry.row.get("status"), "id": id_}


def _show(desk: Desk, directory: Directory, name: str) -> int:
    """Print an entry. Nothing in it is run: pickles are read as far as they hold nothing but plain data."""
    if name not in (*directory.names(), *directory.rejected()):
        raise Ending(f"there is no entry {shown(name)!r}: see spool --list", UNKNOWN)
    try:
        entry = loads(directory.read(name), desk.backend.models)
    except Unreadable as error:
        raise Ending(f"{shown(name)} cannot be read: {error}") from error
    read = Readable(desk.backend.settings.serializer)
    row = {column: read(entry.row, column) if column in PAYLOADS else value for column, value in entry.row.items()}
    told = {"name": name, "kind": entry.kind, **row, "chord": entry.chord}
    if desk.out.form == "json":
        desk.out.json(told)
        return 0
    for title, value in told.items():
        if value is not None:
            text = value if isinstance(value, (str, NotReadable)) else repr(value)
            desk.out.block(title, text if len(text) <= SHOWN else f"{text[:SHOWN]} …\n({len(text)} characters in all)")
    return 0


# -- replaying ---------------------------------------------------------------------------------------------------


def _replay(desk: Desk, directory: Directory, dry_run: bool, yes: bool) -> int:
    names = directory.names()
    if dry_run or not names:
        if desk.out.form == "json":
            desk.out.json({"stored": 0, "counted": len(names), "dry_run": dry_run})
        desk.out.line(f"would store {len(names):,} entries" if names else "nothing waits")
        return 0
    with directory.alone() as alone:
        if not alone:
            raise Ending("a worker is storing them just now: look again in a while")
    desk.asked  # noqa: B018 - tells in one line that the database is away
    agreed(f"store {len(names):,} entries", yes)
    before = len(directory.rejected())
    done, stopped = through(desk, "storing", len(names), _steps(desk, directory, set(names)))
    rejected = len(directory.rejected()) - before
    if rejected:
        desk.out.note(f"{rejected:,} can never be stored, and were put aside: see spool")
    told = f"stored {done - rejected:,} of {len(names):,} entries"
    return ended(desk, told, stopped, stored=done - rejected, rejected=rejected, counted=len(names))


def _steps(desk: Desk, directory: Directory, left: set[str]) -> Iterator[int]:
    """Store those that were there. A thread of this backend may be quicker: then there is nothing to do but to look."""
    moved = time.monotonic()
    while left:
        may_be_left = desk.backend.replay(SLICE)
        still = left & set(directory.names())
        yield len(left) - len(still)
        if len(still) < len(left):
            moved = time.monotonic()
        elif time.monotonic() - moved > PATIENCE:
            raise Ending(f"another process is storing them: {len(still):,} are left")
        elif may_be_left:
            time.sleep(PAUSE)
        left = still
