"""`db+` and `sql+` on one database, there and back, and both at once: Celery 5.7's own backend is the other side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, states
from celery.result import AsyncResult, GroupResult
from celery.utils.serialization import get_pickleable_exception

from legacy import SEQUENCES
from servers import Database
from servers.pool import on
from support import CELERY, SERIALIZERS, Backends, app_on, request

pytestmark = pytest.mark.skipif(CELERY < (5, 7), reason="`db+` writes results by their serializer since Celery 5.7")

#: Not the portable one: Celery's backend meets PostgreSQL there as well.
databases = on("postgresql", "mariadb", "sqlite")
STATES = ("PENDING", "STARTED", "RETRY", "FAILURE", "REVOKED", "SUCCESS", "PROGRESS")
COMMON = ("status", "result", "traceback", "children", "task_id")
EXTENDED = (*COMMON, "name", "args", "kwargs", "worker", "retries", "queue", "tenant", "stamped_headers")
STAMPED = {"stamped_headers": ["tenant"], "stamps": {"tenant": ["acme"]}, "tenant": ["acme"]}


@pytest.fixture(params=[False, True], ids=["plain", "extended"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Of both sides."""
    return {"result_extended": request.param, "accept_content": list(SERIALIZERS)}


@pytest.fixture(autouse=True)
def sequences(database: Database) -> None:
    """In a Galera cluster an operator has made the sequences: Celery's backend cannot there, and uses what it finds."""
    if "sequences as Celery makes them" in database.server.lacks:
        for sequence in SEQUENCES.values():
            database.execute(f"CREATE SEQUENCE {sequence} INCREMENT BY 0")


@pytest.fixture
def celerys(database: Database, settings: dict[str, Any]) -> Celery:
    """An app on Celery's own backend."""
    return app_on(database.url, "db", **settings)


@pytest.fixture
def ours(backends: Backends, settings: dict[str, Any]) -> Iterator[Celery]:
    """An app on this one."""
    return backends(**settings).app


def store_all(app: Celery, prefix: str) -> None:
    """A task in each state, and a group."""
    for state in STATES:
        result = ValueError(state, 1) if state in states.EXCEPTION_STATES else {"state": state, "ö": [1, None]}
        children = [AsyncResult("child", app=app)]
        call = request(f"{prefix}-{state}", _children=children, **STAMPED)
        app.backend.store_result(f"{prefix}-{state}", result, state, traceback="Traceback ö", request=call)
    group(app, prefix).save()


def group(app: Celery, prefix: str) -> GroupResult:
    """A group of all."""
    return GroupResult(f"{prefix}-group", [AsyncResult(f"{prefix}-{state}", app=app) for state in STATES], app=app)


def found(app: Celery, prefix: str) -> list[dict[str, Any]]:
    """The metas of the tasks, in what both sides have in common; exceptions by their repr."""
    names = EXTENDED if app.conf.result_extended else COMMON
    metas = (app.backend.get_task_meta(f"{prefix}-{state}", cache=False) for state in STATES)
    return [{name: _comparable(meta.get(name)) for name in names} for meta in metas]


def _comparable(value: Any) -> Any:
    return repr(value) if isinstance(value, Exception) else value


@databases
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_there_and_back(database: Database, backends: Backends, settings: dict[str, Any], serializer: str) -> None:
    """What each side wrote, both read the same."""
    before = app_on(database.url, "db", result_serializer=serializer, **settings)
    store_all(before, "before")
    between = backends(result_serializer=serializer, **settings).app
    store_all(between, "between")
    after = app_on(database.url, "db", result_serializer=serializer, **settings)
    store_all(after, "after")
    apps = (before, between, after)

    for prefix in ("before", "between", "after"):
        one, *others = (found(app, prefix) for app in apps)
        assert others == [one, one]
        assert [meta["status"] for meta in one] == list(STATES)
        assert [app.GroupResult.restore(f"{prefix}-group") for app in apps] == [group(app, prefix) for app in apps]


@databases
def test_the_same_ids_written_by_both(celerys: Celery, ours: Celery) -> None:
    """A mixed fleet: the last write counts, whoever made it, until one is a success; that one stays."""
    writers = [celerys, ours, celerys, ours]
    for number, (app, state) in enumerate(zip(writers, ("STARTED", "RETRY", "STARTED", "SUCCESS"), strict=True)):
        result = ValueError(number) if state == "RETRY" else number
        app.backend.store_result("t", result, state, request=request("t"))
        answers = [each.backend.get_task_meta("t", cache=False) for each in (celerys, ours)]
        assert [(meta["status"], repr(meta["result"])) for meta in answers] == [(state, repr(result))] * 2
    for app in writers:
        app.backend.store_result("t", ValueError("late"), "FAILURE", request=request("t"))

    assert [app.backend.get_result("t") for app in (celerys, ours)] == [3, 3]


class Declined(Exception):
    """Takes two arguments, and passes on one."""

    def __init__(self, shop: str, amount: int) -> None:
        super().__init__(f"{shop} declined {amount}")
        self.shop = shop


@databases
@pytest.mark.parametrize("error", [Declined("shop", 7), KeyError("shop", 7), ValueError()], ids=repr)
def test_an_exception_comes_back_as_the_same(celerys: Celery, ours: Celery, error: Exception) -> None:
    """Where its class cannot be made again, too. A worker hands over what can be pickled."""
    found = []
    for app in (celerys, ours):
        app.backend.mark_as_failure("t", get_pickleable_exception(error))
        result = app.AsyncResult("t").result
        found.append((type(result), str(result), result.args, sorted(vars(result))))
        app.backend.forget("t")

    assert found[0] == found[1]


@databases
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_celery_writes_over_a_row_in_another_serializer(
    backends: Backends, database: Database, serializer: str
) -> None:
    """It leaves our content type as it was: the app's own is tried too."""
    settings = {"result_serializer": serializer, "accept_content": list(SERIALIZERS)}
    for own in SERIALIZERS:
        backends(result_serializer=own, accept_content=SERIALIZERS).mark_as_started(own, by="us")
        app_on(database.url, "db", **settings).backend.store_result(own, {"by": "celery"}, "SUCCESS")
    backend = backends(**settings)

    assert [backend.get_result(own) for own in SERIALIZERS] == [{"by": "celery"}] * len(SERIALIZERS)


@databases
@pytest.mark.parametrize("first", ["db", "sql"])
def test_whoever_comes_first_makes_the_tables(
    backends: Backends, database: Database, settings: dict[str, Any], first: str
) -> None:
    """The other uses them; ids come from one sequence and do not collide."""
    makers = {"db": lambda: app_on(database.url, "db", **settings).backend, "sql": lambda: backends(**settings)}
    both = [makers[first](), makers["sql" if first == "db" else "db"]()]
    for number in range(10):
        both[number % 2].store_result(f"t-{number}", number, "SUCCESS")

    assert [both[number // 5].get_result(f"t-{number}") for number in range(10)] == list(range(10))


@databases
def test_celerys_cleanup_and_ours_agree(backends: Backends, celerys: Celery) -> None:
    """On what is due: nothing that was just stored."""
    ours = backends(result_expires=3600).app
    celerys.conf.result_expires = 3600
    for number, app in enumerate((celerys, ours)):
        app.backend.store_result(f"t-{number}", number, "SUCCESS")
    for app in (celerys, ours):
        app.backend.cleanup()

    assert [ours.backend.get_result(f"t-{number}") for number in range(2)] == [0, 1]
