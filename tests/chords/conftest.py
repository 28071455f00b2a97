"""Fixtures of these tests: backends, a caller and a worker in one process, and processes to race."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from celery_sql_results import DatabaseBackend
from chords.app import equipped
from chords.post import Post
from servers import Database
from support import app_on

#: Makes a caller and a worker with some settings.
Posts = Callable[..., Post]


@pytest.fixture
def posts(database: Database) -> Iterator[Posts]:
    """Makes apps whose messages the test itself takes from the broker, each with a broker of its own."""
    made: list[Post] = []

    def make(**settings: Any) -> Post:
        queue = f"queue-{uuid.uuid4().hex}"
        made.append(Post(equipped(app_on(settings.pop("url", database.url), task_default_queue=queue, **settings))))
        return made[-1]

    yield make
    for post in made:
        post.backend.database.engine.dispose()
        post.app.close()


@pytest.fixture
def post(posts: Posts) -> Post:
    """A caller and a worker with the defaults."""
    return posts()


@pytest.fixture
def backend(post: Post) -> DatabaseBackend:
    """Their backend."""
    return post.backend
