"""Galera: whatever node somebody is led to, and however far that is behind, it is one database."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, cycle
from typing import Any

import pytest
from celery import chord, states
from celery.result import AsyncResult, GroupResult
from sqlalchemy import Engine, event

from celery_sql_results import DatabaseBackend
from chords.app import equipped
from chords.post import Letter, Post
from clusters.galera import Galera, GaleraNode
from concurrency.actors import set_up_and_store, set_up_as_newer_and_store, set_up_as_older_and_store
from concurrency.nursery import Nursery, complaints, errors
from faults.load import until
from servers.pool import or_skip
from support import app_on, close

#: Processes that meet on an empty database, and how often.
PROCESSES, ROUNDS = 20, int(os.environ.get("GALERA_ROUNDS", "3"))
#: Chords whose parts return on a node each.
CHORDS, PARTS = 25, 3
#: Seconds for which somebody waits for others at a statement.
TOGETHER = 0.3
VERSION = "SELECT version_num FROM celery_taskmeta_version"
SEQUENCES = ("task_id_sequence", "taskset_id_sequence")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Galera]:
    """Three nodes."""
    with or_skip("galera"), Galera() as cluster:
        yield cluster


@pytest.fixture
def nodes(cluster: Galera) -> list[GaleraNode]:
    """The nodes, which are one cluster."""
    cluster.heal()
    return cluster.nodes


class Place:
    """An empty database on all nodes."""

    numbers = count()

    def __init__(self, nodes: list[GaleraNode]) -> None:
        self.name, self.nodes = f"place_{next(self.numbers)}", nodes
        self.on(0, f"CREATE DATABASE {self.name}", database=None)
        until(lambda: all(self._is_on(node) for node in range(len(nodes))), "the database is on each node")
        for node in nodes:
            node.server.mark()

    def _is_on(self, node: int) -> bool:
        return self.on(node, f"SHOW DATABASES LIKE '{self.name}'", database=None) != []

    def on(self, node: int, sql: str, **where: Any) -> list[tuple[Any, ...]]:
        """Run a statement on one node, as administrator, and return its rows."""
        return self.nodes[node].server.execute(sql, **{"database": self.name, **where})

    def everywhere(self, sql: str) -> list[list[tuple[Any, ...]]]:
        """The rows of a query on each node, which sees all that was committed."""
        return [self.on(node, f"SET STATEMENT wsrep_sync_wait = 7 FOR {sql}") for node in range(len(self.nodes))]

    def url(self, node: int = 0) -> str:
        """The SQLAlchemy URL on one node."""
        return self.nodes[node].server.url(self.name)

    def errors(self) -> list[str]:
        """What the nodes have logged as errors."""
        return [line for node in self.nodes for line in node.server.errors()]


@pytest.fixture
def place(nodes: list[GaleraNode]) -> Place:
    """A database of this test."""
    return Place(nodes)


#: Makes a backend on a node, or on all in turn.
Backends = Callable[..., DatabaseBackend]


@pytest.fixture
def backends(place: Place) -> Iterator[Backends]:
    """Makes backends: on one node, or with `None` each connection is to the next."""
    made: list[DatabaseBackend] = []

    def make(node: int | None = 0, **settings: Any) -> DatabaseBackend:
        if node is None:
            settings = {"database_engine_callback": in_turn(place.nodes), **settings}
        options = {"connect_args": {"ssl_disabled": True}}
        app = app_on(place.url(node or 0), database_engine_options=options, **settings)
        made.append(app.backend)
        return made[-1]

    yield make
    close(*made)


def in_turn(nodes: list[GaleraNode]) -> Callable[[Engine], None]:
    """An engine callback that leads each connection to the next node, as a proxy does."""
    ports = cycle([node.server.port for node in nodes])

    def lead(engine: Engine) -> None:
        @event.listens_for(engine, "do_connect")
        def connect(_dialect: object, _record: object, _arguments: object, parameters: dict[str, Any]) -> None:
            parameters["port"] = next(ports)

    return lead


# -- set-up ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_set_up_by_processes_on_all_nodes(place: Place, nursery: Nursery, round_: int) -> None:
    outcomes = nursery.at_once([(set_up_and_store, (place.url(n % 3), f"task-{n}")) for n in range(PROCESSES)])

    assert errors(outcomes) == []
    assert complaints(outcomes) == []
    assert place.everywhere(VERSION) == [[("0005",)]] * 3
    assert place.everywhere("SELECT COUNT(*) FROM celery_taskmeta") == [[(PROCESSES,)]] * 3
    assert place.errors() == []


def test_set_up_that_meets_at_each_statement(
    place: Place, backends: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    """As a rule, each node's process has seen that something is missing when another creates it."""
    barrier = threading.Barrier(3)

    def meet(engine: Engine) -> None:
        @event.listens_for(engine, "before_cursor_execute")
        def wait(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            if statement.lstrip().startswith(("CREATE", "INSERT INTO celery_taskmeta_version")):
                try:
                    barrier.wait(TOGETHER)
                except threading.BrokenBarrierError:  # others have found it there
                    barrier.reset()

    found = [backends(node, database_engine_callback=meet) for node in range(3)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda backend: backend.store_result("t", 1, states.SUCCESS), found))

    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert [backend.get_result("t") for backend in found] == [1, 1, 1]
    assert place.everywhere(VERSION) == [[("0005",)]] * 3
    assert place.errors() == []


def test_releases_before_and_after(place: Place, nursery: Nursery) -> None:
    """Also of those that come at once, the newest says last which version there is."""
    releases = (set_up_as_older_and_store, set_up_and_store, set_up_as_newer_and_store)
    calls = [(releases[n % 3], (place.url(n // 3 % 3), f"task-{n}")) for n in range(18)]
    outcomes = nursery.at_once(calls)
    again = nursery.at_once([(set_up_as_newer_and_store, (place.url(), "task-18"))])

    assert errors([*outcomes, *again]) == []
    assert place.everywhere(VERSION) == [[("0006",)]] * 3
    assert place.everywhere("SELECT COUNT(*) FROM celery_taskmeta") == [[(19,)]] * 3


# -- sequences ---------------------------------------------------------------------------------------------------


def test_sequences(place: Place, backends: Backends) -> None:
    """Each node draws numbers of its own, several at once."""
    backends().store_result("t", 1, states.SUCCESS)
    query = "SELECT increment, cache_size > 0 FROM {}"

    assert [place.on(1, query.format(name)) for name in SEQUENCES] == [[(0, 1)]] * 2


def test_ids_that_two_nodes_draw(place: Place, backends: Backends) -> None:
    """A sequence that somebody else has made, by which nodes draw the same numbers."""
    for name in SEQUENCES:
        place.on(0, f"CREATE SEQUENCE {name} NOCACHE")
    found = [backends(node) for node in range(3)]
    stored = {f"{node}-{number}": number for number in range(100) for node in range(3)}
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda item: found[int(item[0][0])].store_result(*item, states.SUCCESS), stored.items()))

    assert {task_id: found[0].get_result(task_id) for task_id in stored} == stored
    assert place.everywhere("SELECT COUNT(*) FROM celery_taskmeta") == [[(len(stored),)]] * 3


def test_a_sequence_that_is_behind(place: Place, backends: Backends, caplog: pytest.LogCaptureFixture) -> None:
    """It is moved on, on each node."""
    found = [backends(node) for node in range(3)]
    found[0].store_result("before", 0, states.SUCCESS)
    place.on(0, "DELETE FROM celery_taskmeta")
    place.on(0, "INSERT INTO celery_taskmeta (id, task_id) SELECT seq, CONCAT('old-', seq) FROM seq_1_to_3000")
    place.on(0, "ALTER SEQUENCE task_id_sequence INCREMENT BY 0 RESTART WITH 1")
    stored = {f"{number}-{node}": number for number in range(5) for node in range(3)}
    for task_id, number in stored.items():
        found[int(task_id[-1])].store_result(task_id, number, states.SUCCESS)

    assert {task_id: found[0].get_result(task_id) for task_id in stored} == stored
    assert place.everywhere("SELECT COUNT(*) FROM celery_taskmeta WHERE status IS NULL") == [[(3000,)]] * 3
    assert "its sequence is behind" in caplog.text


# -- a node that lags --------------------------------------------------------------------------------------------


@pytest.fixture
def lagging(nodes: list[GaleraNode]) -> Iterator[None]:
    """The last node is behind, again and again."""
    with nodes[-1].lagging():
        yield


def test_results_that_others_have_stored(place: Place, backends: Backends, lagging: None) -> None:
    """Whoever knows that something was stored finds it."""
    writer, reader = backends(0), backends(2)
    for number in range(20):
        writer.store_result(f"t-{number}", number, states.SUCCESS)
        GroupResult(f"g-{number}", [AsyncResult(f"t-{number}", app=writer.app)], app=writer.app).save(backend=writer)

        assert reader.get_state(f"t-{number}") == states.SUCCESS
        assert GroupResult.restore(f"g-{number}", backend=reader, app=reader.app).results[0].id == f"t-{number}"


def test_a_result_that_was_forgotten_is_stored_again(place: Place, backends: Backends) -> None:
    """A write also knows what was committed before it."""
    one, other = backends(0), backends(2)
    place.on(0, "CREATE TABLE ballast (n INTEGER PRIMARY KEY)")
    assert place.everywhere("SELECT * FROM ballast") == [[]] * 3
    place.nodes[2].be_late(f"{place.name}.ballast")
    for number in range(3):
        one.store_result("t", "before", states.SUCCESS)
        assert other.get_result("t") == "before"
        place.on(0, f"INSERT INTO ballast VALUES ({number})")
        one.forget("t")
        other.store_result("t", number, states.SUCCESS)

        assert one.get_result("t") == number
        one.forget("t")


def test_chords(place: Place, backends: Backends, lagging: None) -> None:
    """Threads of one process, each led to some node: each body is sent once, by whoever ends the header."""
    app = equipped(backends(None, task_default_queue=place.name).app)
    post = Post(app)
    with ThreadPoolExecutor(PARTS) as pool:
        for _ in range(CHORDS):
            chord([post.number(n) for n in range(PARTS)], app=app)(post.in_order())
            parts = post.taken()
            list(pool.map(lambda letter: post.deliver(letter, letter.args[0]), parts))
            bodies: list[Letter] = post.taken()

            assert [(letter.task, sorted(letter.args[0])) for letter in bodies] == [("in_order", [0, 1, 2])]
    assert place.everywhere("SELECT COUNT(*) FROM celery_taskmeta_parts") == [[(0,)]] * 3
    assert place.everywhere("SELECT COUNT(*) FROM celery_taskmeta_chords WHERE date_dispatched IS NULL") == [[(0,)]] * 3


# -- conflicts, and nodes that are not there ---------------------------------------------------------------------


def test_writes_that_conflict(place: Place, backends: Backends) -> None:
    """On each node at once, also in one commit with a part: what a node refuses is tried again."""
    app = equipped(backends(0, task_default_queue=place.name).app)
    post, found = Post(app), [backends(node) for node in range(3)]
    for _ in range(15):
        chord([post.number(0)], app=app)(post.number())
        [part] = post.taken()
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda backend: backend.mark_as_done(part.id, 0, request=part.request), found))  # noqa: B023

        assert [backend.get_result(part.id) for backend in found] == [0, 0, 0]
    assert place.everywhere("SELECT COUNT(*) FROM celery_taskmeta_parts") == [[(0,)]] * 3


def test_what_is_too_large_to_be_replicated(place: Place, backends: Backends) -> None:
    """A marker is stored in its place, as of all that a server refuses."""
    backend = backends(0, result_backend_max_retries=0)
    backend.store_result("t", 1, states.SUCCESS)
    place.on(0, "SET GLOBAL wsrep_max_ws_size = 65536")
    try:
        backend.store_result("large", "x" * 200_000, states.SUCCESS)
    finally:
        place.on(0, "SET GLOBAL wsrep_max_ws_size = DEFAULT")

    assert "Maximum writeset size exceeded" in str(backends(1).get_result("large"))


def test_a_node_that_is_alone(
    cluster: Galera, place: Place, backends: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    """What it refuses is stored by another, at once; who has no other waits for it."""
    first, anywhere, there = backends(0), backends(None), backends(2)
    for backend in (anywhere, there):
        backend.store_result("before", 0, states.SUCCESS)
    new = backends(2)
    tasks = [f"t-{number}" for number in range(10)]
    caplog.set_level(logging.DEBUG, "celery_sql_results.writing.retry")
    with ThreadPoolExecutor() as pool:
        with cluster.isolated(cluster.nodes[2]):
            for task_id in tasks:
                anywhere.store_result(task_id, 1, states.SUCCESS)
            late = [
                pool.submit(backend.store_result, name, 1, states.SUCCESS)
                for name, backend in (("late", there), ("new", new))
            ]
            until(lambda: caplog.text.count("; retry 2") == 2, "both wait")
        for each in late:
            each.result()

    assert [first.get_result(task_id) for task_id in (*tasks, "late", "new")] == [1] * 12
