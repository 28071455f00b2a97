"""What is odd about the ids and the values of parts."""

from __future__ import annotations

import uuid

from celery import chord

from chords.post import Post


def test_ids_may_be_uuids(post: Post) -> None:
    """Of the parts and of the body; they are UUIDs in the requests of the worker too."""
    parts = [post.number(value).set(task_id=uuid.uuid4()) for value in range(3)]
    body = chord(parts)(post.in_order().set(task_id=uuid.uuid4()))
    for letter in post.taken():
        post.deliver(letter, letter.args[0])
    [sent] = post.taken()
    post.deliver(sent, sent.args[0])

    assert body.get(timeout=5) == [0, 1, 2]


def test_a_part_whose_value_cannot_be_read(post: Post) -> None:
    """Is not taken for a value: the body fails, and says why."""
    body = chord([post.number(1), post.number(2)])(post.in_order())
    first, second = post.taken()
    post.deliver(first, 1)
    with post.backend.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE celery_taskmeta_parts SET result = '{'")
    post.deliver(second, 2)

    assert (post.taken(), body.state) == ([], "FAILURE")
    assert "DecodeError" in str(body.result)
