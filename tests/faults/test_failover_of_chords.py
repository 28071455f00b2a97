"""The primary is lost while the last part of a chord returns, at each statement of that: the body is sent once."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from celery import chord
from sqlalchemy import event

from chords.app import equipped
from chords.post import Post
from faults.actors import SETTINGS
from faults.load import until
from faults.test_failover import meanwhile, primary, proxy, retried, standby, through
from servers import PostgreSQL, Standby
from servers.proxy import Proxy
from support import app_on, close

__all__ = ["primary", "proxy", "standby"]

#: How many statements it takes: the part is stored, counted and claimed, the header is joined, the chord closed.
STATEMENTS = 5


@pytest.fixture
def post(primary: PostgreSQL, proxy: Proxy) -> Iterator[Post]:
    """A caller and a worker whose messages the test takes from the broker."""
    settings = {**SETTINGS, "task_default_queue": uuid.uuid4().hex}
    post = Post(equipped(app_on(through(proxy, primary), **settings)))
    primary.execute("TRUNCATE celery_taskmeta_chords, celery_taskmeta_parts", database="results")  # left by other tests
    yield post
    close(post.backend)


def at_statement(post: Post, number: int, work: Any) -> None:
    """Do something as that statement from now on is sent; the first is 0."""
    numbers = count()

    def listener(*_: Any) -> None:
        if next(numbers) == number:
            work()

    event.listen(post.backend.database.engine, "before_cursor_execute", listener)


@pytest.mark.parametrize("moment", range(STATEMENTS))
@pytest.mark.parametrize("is_done", [False, True], ids=["not executed", "not acknowledged"])
def test_the_last_part_returns(
    primary: PostgreSQL,
    standby: Standby,
    proxy: Proxy,
    post: Post,
    moment: int,
    is_done: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    result = chord([post.number(n) for n in range(2)])(post.number())
    first, last = post.taken()
    post.deliver(first, 1)
    standby.catch_up()

    def lose() -> None:
        proxy.target = standby.port
        if is_done:
            proxy.cut_after(0, "to client")
        else:
            proxy.cut()

    at_statement(post, moment, lose)
    with meanwhile(lambda: post.deliver(last, 2)):
        until(retried(caplog), "something is tried again")
        standby.catch_up()
        standby.promote()

    (body,) = post.taken()
    assert (body.id, body.args) == (result.id, [[1, 2]])
    post.backend.sweep_chords()
    assert post.taken() == []
    assert standby.execute("SELECT * FROM celery_taskmeta_parts", database="results") == []
