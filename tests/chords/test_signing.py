"""A body that a worker finds in a row is sent only if the app has signed it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from celery import chord
from celery.exceptions import ChordError
from hypothesis import given
from hypothesis import strategies as st

from celery_sql_results.chords.signing import FAIL, SEND, Signer
from chords.conftest import Posts
from chords.post import Post
from servers import Database
from servers.pool import on

EVERYWHERE = on("postgresql", "mariadb", "sqlite", "portable")
SECRETS = {"database_chord_secrets": ["new", "old"]}


def left(post: Post, body: Any = None) -> Any:
    """Send a chord whose only part returns in a process that dies, so that a worker's upkeep sends the body."""
    result = chord([post.number(1)])(body or post.number())
    [part] = post.taken()
    post.backend.mark_as_done(part.id, 1, request=part.request.__class__(id=part.id, group=None))
    return result


def sent(post: Post) -> list[tuple[str, Any]]:
    """What a worker sends that looks after the chords."""
    post.backend.sweep_chords()
    return [(letter.task, letter.args) for letter in post.taken()]


def rewrite(database: Database, old: str, new: str) -> None:
    """Somebody who may write rows changes a text in the body of each chord."""
    column = "body" if database.kind in ("mariadb", "sqlite") else "convert_from(body, 'UTF8')"
    text = f"replace({column}, '{old}', '{new}')"
    value = text if database.kind in ("mariadb", "sqlite") else f"convert_to({text}, 'UTF8')"
    database.execute(f"UPDATE celery_taskmeta_chords SET body = {value}")


@EVERYWHERE
@pytest.mark.parametrize("reader", [{}, SECRETS, {"database_chord_secrets": ["newer", "new"]}])
def test_a_body_of_ones_own_is_sent(posts: Posts, reader: dict[str, Any]) -> None:
    """Also while the secret is changed, and by a process that has none."""
    left(posts(**SECRETS))
    worker = posts(**reader)
    assert sent(worker) == [("number", [[1]])]


@EVERYWHERE
@pytest.mark.parametrize("changed", [('"task": "number"', '"task": "boom"'), ('"args": []', '"args": [7]')])
def test_a_body_that_was_changed_is_not(
    posts: Posts, database: Database, changed: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Its chord is closed: it holds nobody up, whoever waits is told, and no errback of it runs."""
    post = posts(**SECRETS)
    result = left(post, post.number().on_error(post.number()))
    rewrite(database, *changed)
    assert sent(post) == []
    with pytest.raises(ChordError, match="database_chord_secrets"):
        result.get(timeout=10, follow_parents=False)
    assert [message for message in caplog.messages if "is closed without its body" in message] != []
    assert post.backend.database.rows.chords.opened("", 10) == []  # type: ignore[union-attr]


@EVERYWHERE
def test_a_body_of_another_chord_is_not(posts: Posts, database: Database) -> None:
    post = posts(**SECRETS)
    left(post)
    left(post)
    [(one,), (two,)] = database.execute("SELECT group_id FROM celery_taskmeta_chords ORDER BY group_id")
    other = f"(SELECT body FROM (SELECT body FROM celery_taskmeta_chords WHERE group_id = '{one}') AS found)"
    database.execute(f"UPDATE celery_taskmeta_chords SET body = {other} WHERE group_id = '{two}'")
    assert len(sent(post)) == 1


@EVERYWHERE
@pytest.mark.parametrize(("accepts", "count"), [(True, 1), (False, 0)])
def test_a_body_from_before_there_was_a_secret(posts: Posts, accepts: bool, count: int) -> None:
    left(posts())
    worker = posts(**SECRETS, database_accept_unsigned_chords=accepts)
    assert len(sent(worker)) == count


def test_a_body_that_json_cannot_write(posts: Posts, database: Database) -> None:
    """What is kept of it lets it fail, with its errbacks: that is signed as well."""
    post = posts(**SECRETS, task_serializer="pickle", accept_content=["pickle", "json"])
    left(post, post.number({1j}).on_error(post.number()))
    assert database.execute("SELECT count(*) FROM celery_taskmeta_chords WHERE body IS NULL") == [(1,)]
    database.execute("UPDATE celery_taskmeta_chords SET body = bare_body")
    assert sent(post) == []  # it has no arguments: it was signed to fail, not to be sent


texts = st.text(min_size=1)


@given(texts, texts, st.dictionaries(texts, texts, min_size=1), texts)
def test_signatures(secret: str, group_id: str, body: dict[str, str], other: str) -> None:
    """Of any body, with any secret: the body comes back as it was, and to nobody who has another secret."""
    text = json.dumps(body).encode()
    stored = Signer([secret], takes_unsigned=False).signed(group_id, text, SEND)
    assert stored is not None
    assert json.loads(stored) == body | {"celery_sql_results_signature": json.loads(stored).popitem()[1]}
    assert Signer([other, secret], takes_unsigned=False).opened(group_id, stored, SEND) == text
    assert Signer([], takes_unsigned=False).opened(group_id, stored, SEND) == text
    for wrong in (Signer([secret + "x"], True), Signer([other + secret], True)):
        with pytest.raises(Exception, match="another secret"):
            wrong.opened(group_id, stored, SEND)
    with pytest.raises(Exception, match="another chord"):
        Signer([secret], takes_unsigned=True).opened(group_id + "x", stored, SEND)
    with pytest.raises(Exception, match="another"):
        Signer([secret], takes_unsigned=True).opened(group_id, stored, FAIL)
