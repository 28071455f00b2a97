"""Chords whose parts were stored by somebody else end by the results of their members."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery import chain, chord, group, states
from celery.backends.cache import CacheBackend
from celery.backends.database import DatabaseBackend as CelerysBackend
from celery.exceptions import ChordError
from sqlalchemy import event

from celery_sql_results import DatabaseBackend
from celery_sql_results.chords import handing_over
from chords.app import number
from chords.conftest import Posts
from chords.post import Letter, Post
from servers import Database
from servers.pool import on
from support import app_on

PASSWORD = "secret"
ERROR = {"exc_type": "ValueError", "exc_message": ["no"], "exc_module": "builtins"}
#: How somebody stores the result of a task without the request that a worker has.
HOW: dict[str, Callable[[Any, str], object]] = {
    "mark_as_done": lambda backend, id_: backend.mark_as_done(id_, id_),
    "store_result": lambda backend, id_: backend.store_result(id_, id_, states.SUCCESS),
    "mark_as_failure": lambda backend, id_: backend.mark_as_failure(id_, ValueError("no")),
    "update_state": lambda backend, id_: backend.store_result(id_, ERROR, states.FAILURE),
    "mark_as_revoked": lambda backend, id_: backend.mark_as_revoked(id_, "no"),
}
#: Headers, and how many messages they begin with. The end of a chain is a part that was not sent yet.
HEADERS: dict[str, Callable[[Post], Any]] = {
    "list": lambda post: [post.number(n) for n in range(3)],
    "generator": lambda post: (post.number(n) for n in range(3)),
    "chain": lambda post: [chain(post.number(0), post.number()), post.number(1)],
    "chain that ends in a group": lambda post: [
        post.number(0),
        chain(post.number(1), group(post.number(), post.number())),
    ],
    "chord": lambda post: [post.number(0), chord([post.number(1)], post.in_order())],
}


def begun(post: Post, header: Any = 2, body: Any = None) -> tuple[Any, list[Letter]]:
    """Send a chord; return the result of its body, and the messages of its parts."""
    header = [post.number(n) for n in range(header)] if isinstance(header, int) else header
    result = chord(header)(post.number() if body is None else body)
    return result, post.taken()


def leaves(results: Any) -> list[str]:
    """The ids of the members of a header."""
    return [id_ for each in results for id_ in (leaves(each.results) if hasattr(each, "results") else [each.id])]


def bodies(post: Post) -> list[tuple[str, Any]]:
    """The bodies that were sent: id and what each was given."""
    return [(letter.id, letter.args[0]) for letter in post.taken()]


def error_of(post: Post, result: Any) -> BaseException:
    """What a body failed with."""
    assert post.backend.get_state(result.id) == states.FAILURE
    return post.backend.get_result(result.id)  # type: ignore[no-any-return]


@pytest.mark.parametrize("how", HOW)
def test_whoever_stores_a_result_completes_its_chord(post: Post, how: str) -> None:
    """From another process that knows no more than the id; the other part returns as it should."""
    result, (one, two) = begun(post)
    post.deliver(two, 2)
    assert post.backend.sweep_chords() == 0
    other = app_on(post.backend.settings.url)
    HOW[how](other.backend, one.id)
    other.close()
    assert post.backend.sweep_chords() == 1
    if how in ("mark_as_done", "store_result"):
        assert bodies(post) == [(result.id, [one.id, 2])]
    else:
        assert bodies(post) == []
        assert isinstance(error_of(post, result), ChordError)
        assert one.id in str(error_of(post, result))
    assert post.backend.sweep_chords() == 0


@pytest.mark.parametrize("kind", HEADERS)
def test_headers_of_every_kind(post: Post, kind: str) -> None:
    """All of them are stored by somebody else, and reach the body in the order of the header."""
    result, _ = begun(post, HEADERS[kind](post))
    ids = leaves(result.parent.results)
    for task_id in ids[1:]:
        post.backend.store_result(task_id, ids.index(task_id), states.SUCCESS)
    assert post.backend.sweep_chords() == 0
    post.backend.store_result(ids[0], 0, states.SUCCESS)
    assert post.backend.sweep_chords() == 1
    nested = {"chain that ends in a group": [0, [1, 2]]}
    assert (result.id, nested.get(kind, [*range(len(ids))])) in bodies(post)


def test_one_signature_twice_and_one_task_that_was_added(post: Post) -> None:
    """Each place of the header has its part, and a task that was added is awaited as well."""
    same = post.number(7)
    same.freeze("same")
    result, letters = begun(post, [same, post.number(1), same])
    added = post.app.AsyncResult("added")
    post.backend.add_to_chord(result.parent.id, added)
    post.deliver(next(letter for letter in letters if letter.id != "same"), 1)
    post.backend.store_result("same", 7, states.SUCCESS)
    assert post.backend.sweep_chords() == 0
    post.backend.store_result("added", 8, states.SUCCESS)
    assert post.backend.sweep_chords() == 1
    assert bodies(post) == [(result.id, [7, 1, 7, 8])]


@pytest.mark.parametrize("state", ["STARTED", "RETRY", "PROGRESS"])
def test_a_member_that_has_not_ended_is_awaited(post: Post, state: str) -> None:
    result, (one, two) = begun(post)
    post.deliver(two, 2)
    post.backend.store_result(one.id, ValueError("again") if state == "RETRY" else None, state)
    assert [post.backend.sweep_chords() for _ in range(3)] == [0, 0, 0]
    post.deliver(one, 1)
    assert bodies(post) == [(result.id, [1, 2])]


def test_a_part_whose_result_is_ignored_has_no_row(post: Post) -> None:
    """It is not awaited again."""
    result, (one, two) = begun(post)
    one.request.ignore_result = True
    post.deliver(one, 1)
    post.backend.store_result(two.id, 2, states.SUCCESS)
    assert post.backend.sweep_chords() == 1
    assert bodies(post) == [(result.id, [1, 2])]


@on("postgresql", "mariadb", "sqlite")
def test_celerys_own_backend_stores_a_part(post: Post, database: Database) -> None:
    """A worker on `db+`, in a mixed fleet: it stores the result, and knows nothing of parts."""
    result, (one, two) = begun(post)
    celerys = CelerysBackend(app=post.app, url=database.url)
    celerys.mark_as_done(one.id, "theirs", request=one.request)
    celerys.mark_as_failure(two.id, ValueError("theirs"), request=two.request)
    assert post.backend.sweep_chords() == 1
    assert "ValueError('theirs')" in str(error_of(post, result))


@on("postgresql", "mariadb", "sqlite")
@pytest.mark.parametrize("kind", ["ours", "memory"])
def test_a_task_has_a_backend_of_its_own(posts: Posts, tmp_path: Path, kind: str) -> None:
    """Its result is there, and its part is nowhere."""
    post = posts(cache_backend="memory")
    app = post.app
    url = f"sqlite:///{tmp_path / 'other.db'}"
    other = DatabaseBackend(app=app, url=url) if kind == "ours" else CacheBackend(app=app, backend="memory://")
    app.task(name="there", backend=other, shared=False)(number)
    result, letters = begun(post, [post.number(1), post.there(2)])
    for letter in letters:
        if letter.task == "number":
            post.deliver(letter, 1)
    assert post.backend.sweep_chords() == 0
    there = next(letter for letter in letters if letter.task == "there")
    other.store_result(there.id, 2, states.SUCCESS)
    assert post.backend.sweep_chords() == 1
    assert bodies(post) == [(result.id, [1, 2])]
    if kind == "ours":
        other.database.engine.dispose()


def test_a_body_that_json_cannot_write_fails(posts: Posts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a part could have sent it. It is told so after a lease, and its errback is called."""
    monkeypatch.setattr(handing_over, "SHORTEST_JOIN", 0.1)
    post = posts(task_serializer="pickle", accept_content=["pickle", "json"], broker_connection_timeout=0.01)
    post.app.conf.task_publish_retry_policy = {"interval_max": 0.01}
    told = post.number("told").set(immutable=True)
    result, letters = begun(post, body=post.note(path=complex(1, 2)).on_error(told))
    for letter in letters:
        post.backend.store_result(letter.id, 1, states.SUCCESS)
    while post.backend.get_state(result.id) == states.PENDING:
        post.backend.sweep_chords()
    assert "JSON cannot write the body" in str(error_of(post, result))
    assert [letter.task for letter in post.taken()] == ["number"]


def test_a_body_that_json_cannot_write_is_sent_by_a_part(posts: Posts) -> None:
    """As ever."""
    post = posts(task_serializer="pickle", accept_content=["pickle", "json"])
    result, letters = begun(post, body=post.note(path=complex(1, 2)))
    for letter in letters:
        post.deliver(letter, 1)
    assert bodies(post) == [(result.id, [1, 1])]


# -- a part that comes again -------------------------------------------------------------------------------------


def test_a_part_that_failed_and_is_delivered_again(post: Post) -> None:
    """Task and chord agree: the failure is replaced, as long as the body was not sent."""
    result, (one, two) = begun(post)
    post.backend.mark_as_failure(one.id, ValueError("no"), request=one.request)
    post.deliver(Letter(**{**vars(one), "request": type(one.request)(vars(one.request))}), "well")
    post.deliver(two, 2)
    assert (post.backend.get_result(one.id), bodies(post)) == ("well", [(result.id, ["well", 2])])


def test_a_part_that_succeeded_does_not_fail_any_more(post: Post) -> None:
    """Nor does another failure become a success by it."""
    result, (one, two) = begun(post)
    post.deliver(one, "well")
    post.backend.mark_as_failure(one.id, ValueError("late"), request=one.request)
    post.deliver(two, 2)
    assert (post.backend.get_state(one.id), bodies(post)) == (states.SUCCESS, [(result.id, ["well", 2])])


def test_a_part_whose_result_is_ignored_comes_again(post: Post) -> None:
    """It has no row, and the same guard."""
    result, (one, two) = begun(post)
    one.request.ignore_result = True
    post.backend.on_chord_part_return(one.request, states.FAILURE, ValueError("no"))
    post.deliver(one, "well")
    post.backend.on_chord_part_return(one.request, states.FAILURE, ValueError("no"))
    post.deliver(two, 2)
    assert bodies(post) == [(result.id, ["well", 2])]


# -- what it costs, and what it needs ----------------------------------------------------------------------------


def statements_of(post: Post, operation: Callable[[], object]) -> int:
    """How many statements an operation takes."""
    seen: list[str] = []
    listen = lambda _connection, _cursor, statement, *_: seen.append(statement)  # noqa: E731
    event.listen(post.backend.database.engine, "before_cursor_execute", listen)
    operation()
    event.remove(post.backend.database.engine, "before_cursor_execute", listen)
    return len(seen)


@on("postgresql", "mariadb", "sqlite")
def test_a_round_costs_the_same_however_many_chords_are_open(post: Post) -> None:
    """A few queries for all of them, and fewer from the second round on; none for those that have ended."""
    begun(post, 3)
    first, second = (statements_of(post, post.backend.sweep_chords) for _ in range(2))
    for _ in range(20):
        begun(post, 3)
    for letter in begun(post, 3)[1]:
        post.deliver(letter, 1)
    assert statements_of(post, post.backend.sweep_chords) == first + 1  # that of what is awaited of the first chord
    assert statements_of(post, post.backend.sweep_chords) == second
    assert second < first


@on("postgresql", "mariadb")
def test_a_role_that_may_not_add_the_column(posts: Posts, database: Database) -> None:
    """Chords are native as before. Only what others store is not found, and the log says what is missing."""
    posts().backend.get_state("the tables are made")
    for column in ("members", "bare_body"):
        database.execute(f"ALTER TABLE celery_taskmeta_chords DROP COLUMN {column}")
    database.server.create_role("clerk", PASSWORD, database.name, ddl=False)
    url = database.server.url(database.name, user="clerk", password=PASSWORD)
    post = posts(url=url)
    result, letters = begun(post)
    for letter in letters:
        post.deliver(letter, 1)
    assert bodies(post) == [(result.id, [1, 1])]
    generated, letters = begun(post, (post.number(n) for n in range(2)))
    assert post.backend.sweep_chords() == 0
    for letter in letters:
        post.deliver(letter, 1)
    assert bodies(post) == [(generated.id, [1, 1])]


@on("postgresql", "mariadb", "sqlite")
def test_a_release_before_has_begun_the_chord(post: Post, database: Database) -> None:
    """It does not know the columns: its chords end as they always did."""
    result, (one, two) = begun(post)
    database.execute("UPDATE celery_taskmeta_chords SET members = NULL")
    post.backend.store_result(one.id, 1, states.SUCCESS)
    assert post.backend.sweep_chords() == 0
    post.deliver(one, 1)
    post.deliver(two, 2)
    assert bodies(post) == [(result.id, [1, 2])]


@pytest.mark.parametrize("members", [b"no JSON", b"[]", b'{"a": 1}', b"[1]", b"[" * 2000])
@on("postgresql", "mariadb", "sqlite")
def test_what_somebody_has_put_in_place_of_the_ids(post: Post, database: Database, members: bytes) -> None:
    """It ends no chord, and keeps no other from its end."""
    _, broken = begun(post)
    engine = sa.create_engine(database.url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE celery_taskmeta_chords SET members = :members"), {"members": members})
    engine.dispose()
    result, letters = begun(post)
    for letter in (*broken, *letters):
        post.backend.store_result(letter.id, 1, states.SUCCESS)
    assert post.backend.sweep_chords() == 1
    assert bodies(post) == [(result.id, [1, 1])]
