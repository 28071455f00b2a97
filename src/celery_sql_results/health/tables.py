"""How the tables are: complete, allowed, of the right types, swept."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from celery_sql_results.dialects import DefaultImpl, Found
from celery_sql_results.models import utc_now
from celery_sql_results.schema import HEAD, State, missing_indexes, needed, shortcomings, strangers

from .finding import Finding, Level

__all__ = ["bloat", "columns", "expired", "indexes", "rights", "strange", "tables", "version"]

UPGRADE = "run upgrade, or let somebody who may run what upgrade --sql shows"
#: What part of the rows may be dead, and how many there must be to matter.
DEAD, MANY = 0.5, 10_000
#: How long after its expiry a result may be there: a cleanup is due each day.
LATE = timedelta(days=2)
#: How many columns are told of a table.
TOLD = 8


def version(state: State) -> Finding:
    """The version of the schema."""
    found = f"version {', '.join(sorted(state.versions or ())) or 'not noted'}"
    if state.versions is None:
        found = "this role may not read the version"
        return Finding("schema", found, Level.ADVICE, to_do=f"GRANT SELECT ON {state.version_table.name}")
    if state.is_ahead:
        return Finding("schema", f"{found}, of a newer release, whose tables are used as they are")
    if state.versions == {HEAD}:
        return Finding("schema", found)
    return Finding("schema", found, Level.WRONG, f"version {HEAD}", UPGRADE)


def tables(state: State) -> Iterator[Finding]:
    """What is missing: tables, columns, sequences."""
    bare = {table: found._replace(denied=(), may_draw=True) for table, found in state.tables.items()}
    wrong = shortcomings(State(state.models, bare, state.version_table, state.version, state.versions))
    for each in wrong:
        yield Finding("tables", each, Level.WRONG, to_do=UPGRADE)
    if not wrong:
        yield Finding("tables", f"{len(bare)} tables are complete")


def rights(state: State, impl: DefaultImpl, purpose: str) -> Iterator[Finding]:
    """What this role may not do that it must be able to, to be a worker, a client or what else."""
    if impl.tending.without_roles is not None:
        return
    wrong: list[str] = []
    for table, (wanted, draws) in needed(impl, state.models, purpose).items():
        found = state.tables.get(table)
        wrong += [] if found is None or not found.columns else _denied(table, found, wanted, draws)
    for each in wrong:
        to_do = f"let somebody who may run what grants ROLE --for {purpose} shows"
        yield Finding("rights", each, Level.WRONG, f"what a {purpose} needs", to_do)
    if not wrong:
        yield Finding("rights", f"this role may do what a {purpose} needs")


def _denied(table: sa.Table, found: Found, wanted: tuple[str, ...], draws: bool) -> Iterator[str]:
    denied = [right for right in wanted if right in found.denied]
    if denied:
        yield f"this role may not {', '.join(denied)} on {table.name}"
    if draws and not found.may_draw:
        yield f"this role may not use the sequence of {table.name}"


def strange(state: State) -> Iterator[Finding]:
    """Roles that own tables or triggers, and so may read and change all results."""
    to_do = "let a role that you trust own the tables (ALTER TABLE … OWNER TO …), or drop the triggers"
    for each in strangers(state):
        yield Finding("owners", each, Level.WRONG, "this role, or one that it belongs to", to_do)


def columns(connection: Connection, impl: DefaultImpl, state: State) -> Iterator[Finding]:
    """Columns of another type than they should have: what loses results, and what only costs something."""
    seen = 0
    for table in (table for table, found in state.tables.items() if found.columns):
        unfit = list(impl.tending.unfit(connection, table))
        for hurts in (True, False):
            some = [each for each in unfit if each.hurts is hurts]
            if some:
                seen += 1
                found = ", ".join(f"{each.column} is {each.found}" for each in some[:TOLD])
                wanted = ", ".join(f"{each.column} {each.needed}" for each in some[:TOLD])
                level = Level.WRONG if hurts else Level.ADVICE
                to_do = "; ".join(each.sql for each in some)
                yield Finding("columns", f"{table.name}: {found}", level, wanted, to_do)
    if not seen:
        yield Finding("columns", "all have the types that they should have")


def bloat(connection: Connection, impl: DefaultImpl, state: State) -> Iterator[Finding]:
    """Dead rows, where the database counts them."""
    for table in (table for table, found in state.tables.items() if found.columns):
        found = impl.tending.bloat(connection, table)
        if found is None:
            continue
        share = found.dead / max(found.dead + found.live, 1)
        text = f"{table.name} has {found.dead:,} dead rows ({share:.0%})"
        if not found.is_swept:
            to_do = f"let autovacuum be on for {table.name} (ALTER TABLE … RESET (autovacuum_enabled))"
            yield Finding("bloat", f"{text}, and autovacuum is off", Level.WRONG, "autovacuum", to_do)
        elif found.dead > MANY and share > DEAD:
            to_do = f"VACUUM {table.name}, or let autovacuum come sooner (autovacuum_vacuum_scale_factor)"
            yield Finding("bloat", text, Level.ADVICE, to_do=to_do)
        elif table is state.models.task:
            yield Finding("bloat", text)


def expired(connection: Connection, state: State, expires: timedelta | None, is_set: bool) -> Finding | None:
    """Whether somebody deletes what has expired. Unless ``result_expires`` is set, that is only advice."""
    table = state.models.task
    if expires is None:
        return Finding("expiry", "results are kept for ever")
    if "SELECT" in state.tables[table].denied or not state.is_usable:
        return None
    oldest = connection.execute(sa.select(sa.func.min(table.c.date_done))).scalar()
    late = utc_now() - oldest.replace(tzinfo=None) - expires if oldest is not None else timedelta()
    if late > LATE:
        level = Level.WRONG if is_set else Level.ADVICE
        to_do = "run celery beat, or cleanup now and then, or set result_expires to what is meant"
        return Finding("expiry", f"the oldest result has expired {late.days} days ago", level, to_do=to_do)
    return Finding("expiry", "what expires is deleted" if oldest is not None else "there are no results yet")


def indexes(connection: Connection, state: State) -> Iterator[Finding]:
    """Indexes that each table should have. Those that cost a writer something are somebody's choice."""
    missing = [wanted for wanted in missing_indexes(connection, state.models) if not wanted.is_costly]
    for wanted in missing:
        found = f"{wanted.table.name} has no index of {', '.join(wanted.columns)}, which {wanted.purpose}"
        yield Finding("indexes", found, Level.WRONG, to_do="run upgrade --indexes: writers go on meanwhile")
    if not missing:
        yield Finding("indexes", "all are there")
