"""One wait never harms another: its errors are its own, its pace is its own, and no timeout waits for a database."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from celery import states
from celery.exceptions import TimeoutError

from celery_sql_results import DatabaseBackend
from faults.trouble import proxied
from servers import Database
from servers.pool import on
from servers.proxy import Proxy
from support import Backends, app_on, close
from waiting.conftest import PATIENCE, Aside, everywhere, until, until_awaited
from waiting.test_crowds import ids
from waiting.writer import Writer

with_a_network = on("postgresql", "psycopg2", "mariadb")
#: Seconds that the clock of a loaded machine may add to a timeout.
SLACK = 3.0


# -- errors ----------------------------------------------------------------------------------------------------------


class Poison:
    """From a moment on, whatever asks for the id `poison` is refused, as by a server that cannot read it."""

    def __init__(self) -> None:
        self.works = False

    def __call__(self, engine: sa.Engine) -> None:
        """Be the callback of an engine."""
        sa.event.listen(engine, "before_cursor_execute", self._refuse)

    def _refuse(self, _connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if self.works and "poison" in repr(parameters):
            raise sa.exc.DataError(statement, None, ValueError("poison"))


@everywhere
@pytest.mark.parametrize("listens", [True, False])
def test_an_id_that_a_look_may_not_ask_for(backends: Backends, writer: Writer, aside: Aside, listens: bool) -> None:
    """Whoever waits for it is told. Others, also in the same query until then, get their results, early and late."""
    poison = Poison()
    backend = backends(database_engine_callback=poison, database_listen=listens)
    values = {task_id: aside(backend.app.AsyncResult(task_id).get, timeout=PATIENCE) for task_id in ("a", "b")}
    group = backend.app.GroupResult("g", [backend.app.AsyncResult(task_id) for task_id in ("c", "poison")])
    refused = [
        aside(backend.app.AsyncResult("poison").get, timeout=PATIENCE),
        aside(group.get, timeout=PATIENCE),
    ]
    until_awaited(backend, "a", "b", "c", "poison")
    poison.works = True
    errors = [type(each.exception(PATIENCE)) for each in refused]
    writer.store_all([(task_id, task_id, states.SUCCESS) for task_id in "ab"])

    assert errors == [sa.exc.DataError] * 2
    assert {task_id: value.result() for task_id, value in values.items()} == {"a": "a", "b": "b"}


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_an_id_that_the_database_cannot_write(postgresql: Database, aside: Aside, driver: str) -> None:
    """A LATIN1 database and Greek: that wait alone is refused, however it is waited for."""
    name = f"{postgresql.name}_latin1"
    postgresql.server.execute(
        f"CREATE DATABASE \"{name}\" ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    backend = app_on(postgresql.server.url(name, driver=driver)).backend
    try:
        value = aside(backend.app.AsyncResult("t").get, timeout=PATIENCE)
        until_awaited(backend, "t")
        greek = backend.app.AsyncResult("Ω")
        for wait in (lambda: greek.get(timeout=PATIENCE), lambda: greek.then(print), lambda: greek.get(timeout=0)):
            with pytest.raises((sa.exc.SQLAlchemyError, UnicodeEncodeError)):
                wait()
        backend.store_result("t", 1, states.SUCCESS)
        assert value.result() == 1
    finally:
        close(backend)
        postgresql.server.drop_database(name)


@pytest.mark.parametrize("nasty", ["nul\x00", "lone \ud800", "x" * 200])
@everywhere
def test_an_id_that_nobody_can_have(backend: DatabaseBackend, writer: Writer, aside: Aside, nasty: str) -> None:
    """As from a URL: it is waited for in vain, and disturbs nobody."""
    value = aside(backend.app.AsyncResult("t").get, timeout=PATIENCE)
    until_awaited(backend, "t")
    with pytest.raises(TimeoutError):
        backend.app.AsyncResult(nasty).get(timeout=0.1)
    watched = backend.app.AsyncResult(nasty)
    watched.then(print)
    writer.store("t", 1)

    assert value.result() == 1


# -- pace ------------------------------------------------------------------------------------------------------------


@on("sqlite", "postgresql")
@pytest.mark.parametrize("how", ["one", "many", "set"])
def test_an_interval_of_0_does_not_spin(backend: DatabaseBackend, how: str) -> None:
    """There is a least pause between two calls of `on_interval`, a hundredth of a second."""
    calls: list[float] = []

    def note() -> None:
        calls.append(time.monotonic())

    wait: dict[str, Callable[..., Any]] = {
        "one": backend.app.AsyncResult("t").get,
        "many": lambda **options: list(backend.get_many(["t", "u"], **options)),
        "set": lambda **options: list(backend.iter_native(backend.app.ResultSet([result(backend, "t")]), **options)),
    }
    with pytest.raises(TimeoutError):
        wait[how](timeout=0.5, interval=0, on_interval=note)

    assert 0 < len(calls) <= 50


def result(backend: DatabaseBackend, task_id: str) -> Any:
    """A result object."""
    return backend.app.AsyncResult(task_id)


@contextmanager
def others_store(backend: DatabaseBackend) -> Iterator[list[str]]:
    """Somebody stores results that nobody awaits, as fast as he can; those that he has stored."""
    stored, ended = list[str](), threading.Event()

    def store() -> None:
        while not ended.is_set():
            stored.append(f"other-{len(stored)}")
            backend.store_result(stored[-1], 1, states.SUCCESS)

    thread = threading.Thread(target=store)
    thread.start()
    yield stored
    ended.set()
    thread.join()


@on("sqlite")
@pytest.mark.parametrize("how", ["get_many", "then"])
def test_a_busy_database_is_not_looked_at_after_each_change(
    database: Database, backends: Backends, aside: Aside, how: str
) -> None:
    """2,000 ids and a writer who never rests. What looks take is a small part of the time."""
    backend, awaited = backends(), ids(2000)
    results = [result(backend, task_id) for task_id in awaited]
    if how == "then":
        backend.watch(results)
    else:
        value = aside(lambda: list(backend.get_many(awaited, timeout=PATIENCE)))
    until_awaited(backend, *awaited)
    began = time.monotonic()
    backend.database.rows.tasks.fetch_many(awaited)
    cost = time.monotonic() - began
    with others_store(backends()) as stored:
        before, began = backend.looker.looks, time.monotonic()
        until(lambda: len(stored) > 500)
        looks, seconds = backend.looker.looks - before, time.monotonic() - began
    for task_id in awaited:
        backend.store_result(task_id, task_id, states.SUCCESS)

    assert looks < 250
    assert looks * cost < seconds / 3
    until(lambda: not backend.looker.awaited())
    assert how == "then" or len(value.result()) == 2000


@on("postgresql", "mariadb", "sqlite")
def test_ten_thousand_results_that_are_watched(database: Database, backends: Backends, aside: Aside) -> None:
    """The quickest `get()` beside them is about as quick as without: what others load the machine with is no matter."""
    backend, other = backends(), backends()
    for warm in ids(5, "warm"):
        latency(backend, other, warm, aside)
    alone = min(latency(backend, other, task_id, aside) for task_id in ids(15, "alone"))
    results = [result(backend, task_id) for task_id in ids(10_000, "watched")]
    for each in results:
        each.then(print)
    beside = min(latency(backend, other, task_id, aside) for task_id in ids(15, "beside"))
    for each in results:
        backend.remove_pending_result(each)

    assert beside < 3 * alone + 0.02
    until(lambda: not backend.looker.awaited())


def latency(backend: DatabaseBackend, other: DatabaseBackend, task_id: str, aside: Aside) -> float:
    """Seconds from the store of a result to the return of a `get`."""

    def wait() -> float:
        result(backend, task_id).get(timeout=PATIENCE)
        return time.monotonic()

    returned = aside(wait)
    time.sleep(0.1)
    other.store_result(task_id, 1, states.SUCCESS)
    stored = time.monotonic()
    return float(returned.result() - stored)


# -- timeouts --------------------------------------------------------------------------------------------------------


@pytest.fixture
def gate(database: Database) -> Iterator[tuple[Proxy, str]]:
    """What stands before the database."""
    with proxied(database) as made:
        yield made
        made[0].silent = False


def in_vain(aside: Aside, waits: list[Callable[[], object]]) -> tuple[list[type[BaseException] | None], float]:
    """What waits end with that begin at once, and how many seconds the longest takes."""

    def wait(function: Callable[[], object]) -> tuple[type[BaseException] | None, float]:
        began = time.monotonic()
        try:
            function()
        except TimeoutError as error:
            return type(error), time.monotonic() - began
        return None, time.monotonic() - began

    ended = [future.result() for future in [aside(wait, function) for function in waits]]
    return [error for error, _ in ended], max(seconds for _, seconds in ended)


def waits_of(backend: DatabaseBackend) -> list[Callable[[], object]]:
    """Ways to wait for a second."""
    some = backend.app.GroupResult("g", [result(backend, task_id) for task_id in "ab"])
    return [
        *(lambda: result(backend, "t").get(timeout=1) for _ in range(60)),
        lambda: result(backend, "t").get(timeout=0),
        lambda: some.get(timeout=1),
        lambda: list(backend.get_many(["a", "b"], timeout=1)),
    ]


@with_a_network
@pytest.mark.parametrize("begins", ["before the first use", "on an open connection", "during the wait"])
def test_a_timeout_is_kept_while_the_database_is_silent(
    database: Database, backends: Backends, gate: tuple[Proxy, str], aside: Aside, begins: str
) -> None:
    """It accepts, and never answers; when it does again, so do waits."""
    proxy, url = gate
    backend = backends(url, database_create_tables_at_setup=False)
    if begins == "before the first use":
        proxy.silent = True
    else:
        backend.store_result("before", 1, states.SUCCESS)
    if begins == "on an open connection":
        proxy.silent = True
    if begins == "during the wait":
        threading.Timer(0.3, setattr, (proxy, "silent", True)).start()
    errors, seconds = in_vain(aside, waits_of(backend))
    assert (errors, seconds < 1 + SLACK) == ([TimeoutError] * len(errors), True)

    proxy.silent = False
    backend.store_result("t", 1, states.SUCCESS)
    assert result(backend, "t").get(timeout=PATIENCE) == 1
    close(backend)
