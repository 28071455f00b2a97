"""One chord that is broken, claimed or locked holds up no other, and its payload stays out of the log."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from celery import chord, states
from celery.exceptions import ChordError

from celery_sql_results.chords import handing_over
from celery_sql_results.rows import ChordRows
from chords.actors import count_in, part, swept
from chords.conftest import Posts
from chords.post import Letter, Post
from concurrency.nursery import Nursery
from servers import Database
from servers.pool import on

SECRET = "card 4242"
#: A header of two tasks, of which the second counts for no part.
TREE = b'[["group", null], [[["a", null], null], [["b", null], null]]]'
#: What is wrong with a chord: its header, and its body. None stands for what is right.
BROKEN: dict[str, tuple[bytes | None, bytes | None]] = {
    "the body is no JSON": (None, SECRET.encode()),
    "the body is no signature": (None, json.dumps([SECRET]).encode()),
    "the body is of no task": (None, json.dumps({"task": {"a": SECRET}, "args": 7}).encode()),
    "the header is no tree": (json.dumps(SECRET).encode(), None),
    "a member has failed with an error of the database": (
        b'[["group", null], [[["a", null], null], [["b", null], null]]]',
        None,
    ),
}
EVERYWHERE = on("postgresql", "mariadb", "sqlite")


def begun(post: Post) -> tuple[Any, list[Letter]]:
    """Send a chord of two; return the result of its body, and the messages of its parts."""
    result = chord([post.number(n) for n in range(2)])(post.number())
    return result, post.taken()


def quick(posts: Posts, monkeypatch: pytest.MonkeyPatch) -> Post:
    """A caller and a worker whose leases are short."""
    monkeypatch.setattr(handing_over, "SHORTEST_JOIN", 0.3)
    policy = {"interval_max": 0.01}
    settings = {
        "broker_connection_timeout": 0.01,
        "task_publish_retry_policy": policy,
        "result_chord_join_timeout": 0.1,
    }
    return posts(**settings)


def complete(rows: ChordRows, group_id: str, header: bytes | None, body: bytes) -> None:
    """A chord of one part, which has returned, and whose process has died."""
    row = {"group_id": group_id, "size": 1, "header": header, "body": body, "content_type": "application/json"}
    rows.open({**row, "members": None, "bare_body": None})
    count_in(rows, part(group_id=group_id, task_id="a"))


def bodies(post: Post) -> list[str]:
    """The ids of the bodies that were sent."""
    return [letter.id for letter in post.taken()]


@EVERYWHERE
@pytest.mark.parametrize("kind", BROKEN)
def test_broken_chords(post: Post, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Twenty of them stand before one that is well. Each is told of once."""
    rows, (header, body) = post.backend.database.rows.chords, BROKEN[kind]
    assert rows is not None
    error = {"exc_type": "OperationalError", "exc_module": "sqlalchemy.exc", "exc_message": [SECRET, None, "lost"]}
    post.backend.store_result("b", error, states.FAILURE)
    for number in range(20):
        signature = json.dumps(post.number().set(task_id=f"body-{number}")).encode()
        complete(rows, f"broken-{number}", header, body or signature)
    complete(rows, "well", None, json.dumps(post.number().set(task_id="body")).encode())
    post.backend.sweep_chords()
    assert bodies(post) == ["body"]
    told = [record for record in caplog.records if record.levelname == "ERROR"]
    post.backend.sweep_chords()
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == len(told) == 20
    assert SECRET not in caplog.text
    assert bodies(post) == []


@EVERYWHERE
def test_a_header_that_cannot_be_joined_fails_its_body(post: Post) -> None:
    """So nobody waits for it; with the error of a database in it as with any other."""
    rows = post.backend.database.rows.chords
    assert rows is not None
    error = {"exc_type": "OperationalError", "exc_module": "sqlalchemy.exc", "exc_message": ["lost", None, "lost"]}
    post.backend.store_result("b", error, states.FAILURE)
    complete(rows, "g", TREE, json.dumps(post.number().set(task_id="body")).encode())
    assert post.backend.sweep_chords() == 1
    assert isinstance(post.backend.get_result("body"), ChordError)


def test_no_log_tells_what_a_part_has_raised(post: Post, caplog: pytest.LogCaptureFixture) -> None:
    """That is in the result of the body, and its class in the log."""
    result, (one, two) = begun(post)
    post.backend.mark_as_failure(one.id, ValueError(SECRET), request=one.request)
    post.deliver(two, 2)
    assert SECRET in str(result.result)
    assert SECRET not in caplog.text
    assert [message for message in caplog.messages if "failed (ChordError)" in message] != []


@EVERYWHERE
def test_a_claim_without_an_end(posts: Posts, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last part waits no longer than a lease. Whoever looks breaks the claim, a lease after he has seen it."""
    post = quick(posts, monkeypatch)
    result, (one, two) = begun(post)
    post.deliver(one, 1)
    forged = "claimed_by = 'nobody', claimed_until = '9999-12-31 00:00:00'"
    database.execute(f"UPDATE celery_taskmeta_chords SET {forged}")
    post.deliver(two, 2)
    assert (bodies(post), post.backend.sweep_chords()) == ([], 0)
    time.sleep(1)
    assert post.backend.sweep_chords() == 1
    assert bodies(post) == [result.id]


@EVERYWHERE
def test_a_claim_that_is_renewed_is_not_broken(posts: Posts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process lives."""
    post = quick(posts, monkeypatch)
    _, (one, two) = begun(post)
    rows = post.backend.database.rows.chords
    assert rows is not None
    for letter in (one, two):
        rows.put_part(part(group_id=letter.request.group, task_id=letter.id, position=letter.request.group_index))
    for hours in range(1, 4):
        assert rows.claim(one.request.group, "alive", timedelta(hours=hours))
        assert post.backend.sweep_chords() == 0
        time.sleep(0.5)


@contextmanager
def held(database: Database, group_id: str) -> Iterator[None]:
    """Somebody holds the row of a chord, in a transaction that does not end."""
    engine = sa.create_engine(database.url)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"SELECT * FROM celery_taskmeta_chords WHERE group_id = '{group_id}' FOR UPDATE")
        yield
        connection.rollback()
    engine.dispose()


@on("postgresql", "mariadb")
def test_a_row_that_somebody_holds(post: Post, database: Database) -> None:
    """The others end meanwhile, and this one afterwards."""
    rows = post.backend.database.rows.chords
    assert rows is not None
    for name in ("a-held", "free"):
        complete(rows, name, None, json.dumps(post.number().set(task_id=name)).encode())
    with held(database, "a-held"):
        assert post.backend.sweep_chords() == 1
        assert bodies(post) == ["free"]
    assert post.backend.sweep_chords() == 1
    assert bodies(post) == ["a-held"]


@EVERYWHERE
def test_large_chords(nursery: Nursery, database: Database) -> None:
    """Whoever looks at many chords reads nothing of theirs that is larger than it can be."""
    [outcome] = nursery.at_once([(swept, (database.url, 300, 200_000))])
    ended, megabytes = outcome.value
    assert (outcome.error, ended) == ("", 0)
    assert megabytes < 20


@EVERYWHERE
@pytest.mark.parametrize("members", [b'["\\ud800"]', b'["a\\u0000b"]', b'["  "]', b'["%s"]' % (b"x" * 200)])
def test_members_that_are_no_ids(post: Post, members: bytes) -> None:
    """Whoever may write rows may write any; the next chord ends by its members all the same."""
    rows = post.backend.database.rows.chords
    assert rows is not None
    columns = {"size": 1, "header": None, "content_type": "application/json", "bare_body": None}
    for group_id, ids in (("broken", members), ("well", b'["stored"]')):
        body = json.dumps(post.number().set(task_id=f"body-{group_id}")).encode()
        rows.open({"group_id": group_id, "body": body, "members": ids, **columns})
    post.backend.store_result("stored", 1, states.SUCCESS)

    assert post.backend.sweep_chords() == 1
    assert bodies(post) == ["body-well"]
