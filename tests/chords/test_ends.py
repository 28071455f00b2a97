"""How chords end: whose elected process died, late copies, values of every kind, and what expires."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import event

from celery_sql_results.chords.handing_over import lease_for
from celery_sql_results.models import utc_now
from chords.actors import end_of_header
from chords.app import condemn, verdict
from chords.conftest import Posts
from chords.post import Letter, Post
from concurrency.nursery import Nursery
from servers import Database
from servers.pool import on
from support import SERIALIZERS

VALUES = [1, "zwei", None, [3.5, {"vier": 5}], "\N{SNOWMAN}"]
#: Times as SQL has them: any lease is over, or is not.
PAST, FUTURE = "2000-01-01 00:00:00", "2100-01-01 00:00:00"
WITH_PROCESSES = on("postgresql", "mariadb", "sqlite")


def begun(post: Post, parts: int | list[Any] = 2, body: Any = None) -> list[Letter]:
    """Send a chord, and return the messages of its parts."""
    header = [post.number(n) for n in range(parts)] if isinstance(parts, int) else parts
    chord(header)(post.number() if body is None else body)
    return post.taken()


def returned(post: Post, letters: list[Letter]) -> None:
    """Let parts return what they were given."""
    for letter in letters:
        post.deliver(letter, letter.args[0])


def bodies(post: Post) -> list[tuple[str, Any]]:
    """The bodies that were sent: id and what each was given."""
    return [(letter.id, letter.args[0]) for letter in post.taken()]


def counted(database: Database, table: str) -> int:
    """How many rows a table of chords has."""
    ((count,),) = database.execute(f"SELECT COUNT(*) FROM celery_taskmeta_{table}")
    return int(count)


def set_time(database: Database, column: str, time: str) -> None:
    """Set the clock of every chord, instead of waiting."""
    database.execute(f"UPDATE celery_taskmeta_chords SET {column} = '{time}'")


def ago(**time: float) -> str:
    """A time as SQL has it."""
    return (utc_now() - timedelta(**time)).isoformat(" ")


def abandoned(post: Post, nursery: Nursery, url: str, path: Path, moment: str = "before") -> tuple[str, list[str]]:
    """Let a process die that was about to send a body; return the body's id and the ids of the parts."""
    condemn(path, "before")
    parts = begun(post, body=post.note(path=str(path), due=datetime(2026, 1, 2)))
    [outcome] = nursery.at_once([(end_of_header, (url, [vars(part.request) for part in parts]))])
    assert "exit code -9" in outcome.error
    return str(parts[0].request.chord["options"]["task_id"]), [part.id for part in parts]


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_values_of_every_kind(posts: Posts, serializer: str) -> None:
    """In the order of the header, whichever returns first."""
    post = posts(result_serializer=serializer, accept_content=list(SERIALIZERS))
    parts = begun(post, len(VALUES))
    for part, value in reversed(list(zip(parts, VALUES, strict=True))):
        post.deliver(part, value)
    assert [values for _, values in bodies(post)] == [VALUES]


def test_every_part_twice(post: Post, database: Database) -> None:
    """One body. What comes after it leaves nothing."""
    one, two = begun(post)
    returned(post, [one, one, two, two, one, two])
    assert [values for _, values in bodies(post)] == [[0, 1]]
    assert counted(database, "parts") == 0


def test_a_part_without_a_position_comes_last(post: Post) -> None:
    """As one that was added to the chord may be."""
    parts = begun(post)
    parts[0].request.group_index = None
    returned(post, parts)
    assert [values for _, values in bodies(post)] == [[1, 0]]


def test_a_part_of_a_chord_that_is_not_here_leaves_nothing(posts: Posts, database: Database) -> None:
    """One that an app began which polls for its chords, say."""
    returned(posts(), begun(posts(database_native_chords=False)))
    assert counted(database, "parts") == 0


@WITH_PROCESSES
@pytest.mark.parametrize("how", ["sweep_chords", "cleanup"])
def test_the_elected_process_died(
    post: Post, database: Database, nursery: Nursery, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """When its lease is over, the body is sent, once, under its id from the start and with its arguments."""
    body, parts = abandoned(post, nursery, database.url, tmp_path / "body")
    sweep = getattr(post.backend, how)
    set_time(database, "claimed_until", FUTURE)
    sweep()
    assert post.taken() == []
    set_time(database, "claimed_until", PAST)
    sweep()
    sweep()
    [sent] = post.taken()
    assert (sent.id, sent.args[0], sent.kwargs["due"]) == (body, parts, datetime(2026, 1, 2))
    assert counted(database, "parts") == 0
    assert [record.getMessage() for record in caplog.records if "was not sent" in record.getMessage()] != []


@WITH_PROCESSES
def test_a_part_that_is_delivered_again_takes_over(
    post: Post, database: Database, nursery: Nursery, tmp_path: Path
) -> None:
    """It waits until the lease of the elected process is over."""
    path = tmp_path / "body"
    condemn(path, "before")
    parts = begun(post, body=post.note(path=str(path)))
    nursery.at_once([(end_of_header, (database.url, [vars(part.request) for part in parts]))])
    set_time(database, "claimed_until", ago(seconds=-1))  # else half a minute
    post.deliver(parts[1], "again")
    [sent] = post.taken()
    assert (sent.id, sent.args[0]) == (parts[0].request.chord["options"]["task_id"], [part.id for part in parts])


@WITH_PROCESSES
def test_a_result_and_its_part_are_one_commit(post: Post, database: Database, nursery: Nursery, tmp_path: Path) -> None:
    """Whoever dies right after the result was stored has stored the part as well: Celery may not run it again."""
    path = tmp_path / "body"
    condemn(path, "uncounted")
    [part] = begun(post, 1, post.note(path=str(path)))
    nursery.at_once([(end_of_header, (database.url, [vars(part.request)]))])
    assert (post.backend.get_state(part.id), counted(database, "parts"), post.taken()) == ("SUCCESS", 1, [])
    assert post.backend.sweep_chords() == 1
    [sent] = post.taken()
    assert (sent.id, sent.args[0]) == (part.request.chord["options"]["task_id"], [part.id])


@WITH_PROCESSES
def test_a_chain_in_the_header_fails_and_its_process_dies(
    post: Post, database: Database, nursery: Nursery, tmp_path: Path
) -> None:
    """The part is the end of the chain, which has failed in one commit with it: Celery 5.7 counts no second failure."""
    path, error = tmp_path / "body", ValueError("no")
    condemn(path, "uncounted")
    [first] = begun(post, parts=[chain(post.number(0), post.number())], body=post.note(path=str(path)))
    nursery.at_once([(end_of_header, (database.url, [vars(first.request)], error))])
    assert not verdict(path, "uncounted").exists()
    post.backend.mark_as_failure(first.id, error, request=first.request)  # it is delivered again
    post.backend.sweep_chords()
    body = first.request.chain[0]["options"]["chord"]["options"]["task_id"]
    assert (post.backend.get_state(body), counted(database, "parts")) == ("FAILURE", 0)


def test_who_is_overtaken_sends_no_body(posts: Posts, database: Database) -> None:
    """Its lease was over before it had read the parts, and another has sent the body and deleted them."""
    slow, quick = posts(database_engine_options={"pool_size": 1}), posts()
    parts = begun(slow)

    def overtake(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "ORDER BY" in statement:
            set_time(database, "claimed_until", PAST)
            quick.backend.sweep_chords()

    event.listen(slow.backend.database.engine, "before_cursor_execute", overtake)
    returned(slow, parts)
    assert [values for _, values in bodies(quick)] == [[0, 1]]
    assert bodies(slow) == []


def routed(*raised: Exception, first: Callable[[], object] = lambda: None) -> Callable[..., None]:
    """A router that fails with these errors, one after another, to send a body: what it is given is a list."""
    left = list(raised)

    def route(_name: str, args: Any, _kwargs: Any, _options: Any, **_: Any) -> None:
        if args and isinstance(args[0], list) and left:
            first()
            raise left.pop(0)

    return route


def test_a_time_limit_strikes_the_elected_process(posts: Posts, database: Database) -> None:
    """Of the last part, whose result is stored: the chord has not failed, whoever looks sends the body."""
    post = posts(task_routes=(routed(SoftTimeLimitExceeded()),))
    parts = begun(post)
    with pytest.raises(SoftTimeLimitExceeded):
        returned(post, parts)
    assert (bodies(post), counted(database, "parts")) == ([], 2)
    assert post.backend.sweep_chords() == 1
    assert [values for _, values in bodies(post)] == [[0, 1]]


def test_a_time_limit_strikes_where_nobody_else_has_the_body(posts: Posts, database: Database) -> None:
    """Only pickle could have written it: it fails, or it would be awaited for ever."""
    post = posts(task_routes=(routed(SoftTimeLimitExceeded()),))
    parts = begun(post)
    database.execute("UPDATE celery_taskmeta_chords SET body = NULL")
    returned(post, parts)
    assert counted(database, "chords WHERE date_dispatched IS NULL") == 0
    assert [row[0] for row in database.execute("SELECT status FROM celery_taskmeta")].count("FAILURE") == 1


def test_who_is_overtaken_fails_no_body(posts: Posts, database: Database) -> None:
    """The broker has kept it waiting for longer than its lease, and another has sent the body."""
    quick = posts()

    def overtake() -> None:
        set_time(database, "claimed_until", PAST)
        quick.backend.sweep_chords()

    slow = posts(task_routes=(routed(ConnectionError("gone"), first=overtake),))
    parts = begun(slow)
    returned(slow, parts)
    ((body, values),) = bodies(quick)
    assert (values, quick.app.AsyncResult(body).state) == ([0, 1], "PENDING")


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        ({}, 10 + 4 * (4 + 1)),
        ({"result_chord_join_timeout": 60, "task_publish_retry": False}, 120 + 4 + 1),
        ({"broker_connection_timeout": 1, "task_publish_retry_policy": {"interval_max": 2}}, 10 + 4 * (1 + 2)),
        ({"task_publish_retry_policy": {"max_retries": None}}, 10 + 60),
        ({"broker_connection_timeout": None}, 10 + 60),
    ],
)
def test_a_lease_outlasts_a_slow_broker(posts: Posts, settings: dict[str, Any], seconds: float) -> None:
    """Twice the time to join, and as long as the settings let a process try to publish."""
    assert lease_for(posts(**settings).backend.app.conf) == timedelta(seconds=seconds)


@pytest.mark.parametrize("state", ["PROGRESS", "SUCCESS", "FAILURE"])
def test_what_a_task_says_of_itself_is_no_part(post: Post, database: Database, state: str) -> None:
    """Only what it returns is, whatever state it has set before."""
    one, two = begun(post)
    early = ValueError("early") if state == "FAILURE" else "early"
    post.backend.store_result(one.id, early, state, request=one.request)
    assert counted(database, "parts") == 0
    returned(post, [one, two])
    assert [values for _, values in bodies(post)] == [[0, 1]]


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"result_expires": None, "result_chord_expires": None}, (True, True)),
        ({"result_expires": 3600, "result_chord_expires": None}, (False, True)),
        ({"result_expires": 3600, "result_chord_expires": 0}, (True, True)),
        ({"result_expires": None, "result_chord_expires": 3600}, (False, True)),
        ({"result_expires": 0, "result_chord_expires": timedelta(minutes=1)}, (False, False)),
    ],
)
def test_chords_expire(posts: Posts, database: Database, settings: dict[str, Any], kept: tuple[bool, bool]) -> None:
    """With their parts, and without a word to the body."""
    post = posts(**settings)
    for hours, stays in zip((2, 0.5), kept, strict=True):
        database.execute("DELETE FROM celery_taskmeta_chords")
        database.execute("DELETE FROM celery_taskmeta_parts")
        returned(post, begun(post)[:1])
        set_time(database, "date_created", ago(hours=hours))
        post.backend.cleanup()
        assert (counted(database, "chords"), counted(database, "parts")) == ((1, 1) if stays else (0, 0))
    assert post.taken() == []
