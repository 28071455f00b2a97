"""What people ask of a table with a million results."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any

from benchmarks.arena import Arena
from benchmarks.case import Benchmark, Play, Round, repeat
from benchmarks.contenders import Contender
from benchmarks.player import Failed, Player
from history import NEWEST, fill, group_id, task_id

#: Results in the table, and on a page.
RESULTS, PAGE = 1_000_000, 50
#: Seconds in which the table must be there.
FILLED_WITHIN = 600.0

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
#: The filters, each by itself. What is rare is at the end.
FILTERS: dict[str, dict[str, Any]] = {
    "list": {},
    "--state FAILURE": {"states": ("FAILURE",)},
    "--state REVOKED": {"states": ("REVOKED",)},
    "--state STARTED": {"states": ("STARTED",)},
    "--task": {"name": "shop.pay_3"},
    "--task glob": {"name": "shop.pay*"},
    "--worker": {"worker": "*@shop-3"},
    "--queue": {"queue": "mail"},
    "--since 1h": {"since": NEWEST - HOUR},
    "--until 29d": {"until": NEWEST - 29 * DAY},
    "--min-runtime 30s": {"longer": 30.0},
    "--exception": {"exception": "HttpError"},
    "--state FAILURE --task": {"states": ("FAILURE",), "name": "shop.pay_3"},
    "--root": {"root": task_id(500_000)},
    "--group": {"group": group_id(500_000)},
    "--parent": {"parent": task_id(500_000)},
    "rare state": {"states": ("REJECTED",)},
    "rare exception": {"exception": "RareError"},
    "rare task": {"name": "report.yearly"},
    "rare worker": {"worker": "celery@gone"},
}


class Questions(Benchmark):
    """Each question is a contender. All have one table, which the first of them fills."""

    name = "questions"
    title = f"The first page of a list, of {RESULTS:,} results"
    contenders = (*FILTERS, "second page", "failures 1d", "show", "show (the command)")

    def __init__(self) -> None:
        self._player: Player | None = None

    @contextmanager
    def prepare(self, arena: Arena, contender: str) -> Iterator[Play]:
        """A process that has asked once, on a table that is as an operator may have it: with all indexes."""
        if contender == "before":
            raise Failed("each question is a contender; nothing is compared with another checkout")
        if self._player is not None:
            yield partial(self._player.do, ask, contender, arena.scale.length)
            return
        with arena.entry("ours") as entry, Player(entry, FILLED_WITHIN) as player:
            player.do(set_up)
            self._player = player
            try:
                yield partial(player.do, ask, contender, arena.scale.length)
            finally:
                self._player = None


def set_up(contender: Contender) -> None:
    """Make the table, and all indexes that are of use."""
    from celery_sql_results.schema import index_statements, missing_indexes

    backend = contender.app.backend
    engine, models = backend.database.engine, backend.models
    backend.session_manager.prepare_models(engine, models)
    fill(engine, models, RESULTS)
    with engine.connect() as connection:
        for statement in list(index_statements(connection, missing_indexes(connection, models))):
            connection.exec_driver_sql(statement)


def ask(contender: Contender, what: str, seconds: float) -> Round:
    """Ask one question for some time, after it was asked once; the time is that of one."""
    question = asker(contender, what)
    question()
    return repeat(question, seconds)


def asker(contender: Contender, what: str) -> Callable[[], Any]:
    """What asks."""
    from celery_sql_results.cli.desk import Desk
    from celery_sql_results.cli.output import Output
    from celery_sql_results.cli.times import Clock
    from celery_sql_results.payload import raised
    from celery_sql_results.rows.queries import Failures, Filter, Results

    numbers = count(1)
    if what == "show (the command)":
        return lambda: show(contender.entry.url, task_id(next(numbers) * 7_919))
    asked = Desk(contender.app, Output("json", Clock(True), False), 60).asked
    results = Results(asked)
    if what == "show":
        return lambda: results.one(task_id(next(numbers) * 7_919), 200_000)
    if what == "failures 1d":
        return lambda: Failures(asked, raised).grouped(Filter(since=NEWEST - DAY))
    after = results.page(Filter(), PAGE).next if what == "second page" else None
    return lambda: results.page(Filter(**FILTERS.get(what, {})), PAGE, after)


def show(url: str, id_: str) -> None:
    """All that the command does once it is imported, a new connection included."""
    from celery_sql_results.cli.program import program

    with redirect_stdout(io.StringIO()):
        program(["--database-url", url, "show", id_], standalone_mode=False)
