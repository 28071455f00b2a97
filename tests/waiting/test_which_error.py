"""What `get` raises of a chord that failed: the error of the part, whenever one asks; Celery's Redis backend does so.

The test itself is the worker, so it says what happens before what.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import celery.result
import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError

from chords.app import equipped
from chords.post import Letter, Post
from chords.stage import AND_YARDSTICK
from chords.stage import close as close_app
from conftest import fresh
from servers.pool import ALL, Pool, or_skip
from support import app_on, close
from waiting.conftest import PATIENCE, Aside, until

#: By Celery's Redis backend.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning")

#: Whoever asks waits, and looks at what came before for the first time after this many seconds.
INTERVAL = 0.5

#: Every database, and Celery's own Redis backend where it is of use.
EVERYWHERE = tuple(dict.fromkeys((*ALL, *AND_YARDSTICK)))
MOMENTS = ("at once", "in the middle", "late")
#: Chords with a part that fails, and mostly another one.
CANVASES: dict[str, Callable[[Post], Any]] = {
    "chord": lambda post: chord([post.number(1), post.number("fails")], post.number()),
    "only part": lambda post: chord([post.number("fails")], post.number()),
    "chain as body": lambda post: chord([post.number(1), post.number("fails")], chain(post.number(), post.number())),
    "chain in the header": lambda post: chord(
        [post.number(1), chain(post.number("fails"), post.number())], post.number()
    ),
    "group in a chain": lambda post: chain(group(post.number(1), post.number("fails")), post.number(), post.number()),
}


@pytest.fixture(params=EVERYWHERE)
def post(request: pytest.FixtureRequest, servers: Pool, caplog: pytest.LogCaptureFixture) -> Iterator[Post]:
    """A caller and a worker with a queue of their own."""
    app = app_on(None, task_default_queue=f"queue-{uuid.uuid4().hex}", result_backend_thread_safe=True)
    if request.param == "redis":
        with or_skip("redis"):
            app.conf.result_backend = servers.server("redis").url("1")
        yield Post(equipped(app))
        caplog.get_records("call").clear()  # errors that were logged hold results, which say goodbye to Redis
        close_app(app, None)
        app.backend.result_consumer.stop()
        app.backend.client.connection_pool.disconnect()
        return
    for database in fresh(servers, request.param):
        app.conf.result_backend = f"sql+{database.url}"
        yield Post(equipped(app))
        close(app.backend)
        app.close()


def end(post: Post, letter: Letter) -> None:
    """Let a task fail or return."""
    if letter.args == ["fails"]:
        post.backend.mark_as_failure(letter.id, ValueError("part"), request=letter.request)
    else:
        post.deliver(letter, 1)


def asked(result: Any, moment: str, post: Post, aside: Aside) -> str:
    """What `get` raises, asked before the tasks run, when the first has failed, or when all are over."""
    waits = threading.Event()
    letters = sorted(post.taken(), key=lambda letter: letter.args != ["fails"])
    done = {"at once": 0, "in the middle": 1, "late": len(letters)}[moment]
    for letter in letters[:done]:
        end(post, letter)
    error = aside(result.get, timeout=PATIENCE, interval=INTERVAL, on_interval=lambda *_: waits.set())
    until(lambda: error.done() or waits.is_set())
    for letter in letters[done:]:
        end(post, letter)
    return repr(error.exception(PATIENCE))


@pytest.mark.parametrize("canvas", CANVASES)
@pytest.mark.parametrize("moment", MOMENTS)
def test_the_error_of_the_part_is_raised(post: Post, aside: Aside, canvas: str, moment: str) -> None:
    """Not that of the body, which is another, and which knows it as its cause."""
    result = CANVASES[canvas](post).apply_async()

    assert asked(result, moment, post, aside) == "ValueError('part')"
    assert isinstance(post.app.AsyncResult(result.id).result, ChordError)


@pytest.mark.parametrize("moment", MOMENTS)
def test_by_results_of_celerys_own_class(post: Post, aside: Aside, moment: str) -> None:
    """The same."""
    body = CANVASES["chord"](post).apply_async()
    header = celery.result.GroupResult(
        body.parent.id, [celery.result.AsyncResult(part.id, app=post.app) for part in body.parent], app=post.app
    )
    result = celery.result.AsyncResult(body.id, app=post.app, parent=header)

    assert asked(result, moment, post, aside) == "ValueError('part')"


@pytest.mark.parametrize("moment", MOMENTS)
def test_without_the_tasks_before(post: Post, aside: Aside, moment: str) -> None:
    """Nobody but the body can be asked, and it says which part it was."""
    body = CANVASES["chord"](post).apply_async()
    error = asked(post.app.AsyncResult(body.id), moment, post, aside)

    assert error == repr(ChordError(f"Dependency {body.parent[1].id} raised ValueError('part')"))


@pytest.mark.parametrize("post", ALL, indirect=True)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_group_of_chords(post: Post, aside: Aside, moment: str) -> None:
    """Joins them as the `get` of each; Celery's Redis backend looks at none of what came before."""
    bodies = [CANVASES[canvas](post).apply_async() for canvas in ("chord", "only part")]
    some = post.app.GroupResult("g", bodies)

    assert asked(some, moment, post, aside) == "ValueError('part')"
