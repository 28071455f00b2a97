"""A real worker, by default with two children, and a real broker, and whoever calls it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import Celery

from acceptance.worker import PATIENCE, TICK, Worker, running, settings_for
from chords.app import make_app
from servers import Database
from servers.pool import Pool, or_skip
from support import CELERY

#: What a worker logs when it gets the task with which Celery polls for the end of a header.
UNLOCK = "Task celery.chord_unlock["

#: The databases, and Celery's own Redis backend as the yardstick; not that of old releases, which lose some bodies.
AND_YARDSTICK = ("postgresql", "mariadb", "sqlite", *(["redis"] if CELERY >= (5, 7) else []))

#: Makes a user of a database, and returns the URL.
User = Callable[[Database], str]


@dataclass(frozen=True)
class Stage:
    """What a test has at hand. There is no database where Celery's own Redis backend is the yardstick."""

    app: Celery
    worker: Worker
    folder: Path
    database: Database | None

    def __getattr__(self, task: str) -> Any:
        """The signature of a task: `stage.number(1)`."""
        return self.app.tasks[task].s

    def count(self, table: str) -> int:
        """How many rows a table of chords has."""
        assert self.database is not None
        ((count,),) = self.database.execute(f"SELECT COUNT(*) FROM celery_taskmeta_{table}")
        return int(count)

    def settle(self) -> None:
        """Return when every message was dealt with, and those sent meanwhile, so that whatever comes twice has come."""
        assert eventually(lambda: at_rest(self.app), True)


def at_rest(app: Celery) -> bool:
    """Whether nothing is queued, and the worker has nothing in hand, nor took anything between two looks."""
    before = in_hand(app)
    with app.connection_for_read() as connection:
        queued = connection.default_channel.queue_declare(app.conf.task_default_queue).message_count
    return queued == 0 and before[:2] == ([], []) and in_hand(app) == before


def in_hand(app: Celery) -> tuple[list[Any], list[Any], dict[str, int]]:
    """The tasks that the only worker runs, those that it will run next, and how many it has begun so far."""
    asked = app.control.inspect(timeout=PATIENCE, limit=1)
    [active], [reserved], [stats] = (answer().values() for answer in (asked.active, asked.reserved, asked.stats))
    return active, reserved, stats["total"]


def eventually(found: Callable[[], object], expected: object) -> bool:
    """Whether something becomes as expected, sooner or later."""
    deadline = time.monotonic() + PATIENCE
    while found() != expected and time.monotonic() < deadline:
        time.sleep(TICK)
    return found() == expected


def lines(path: Path) -> list[str]:
    """What tasks have noted in a file."""
    return path.read_text().splitlines() if path.exists() else []


def close(app: Celery, database: Database | None) -> None:
    """Close what a caller has opened. Results of Celery's own backend say goodbye to Redis, so they go before it."""
    if database is not None:
        app.backend.database.engine.dispose()
    else:
        for pending in app.backend._pending_results:
            pending.clear()
        gc.collect()
    app.close()


@contextmanager
def staged(
    servers: Pool, kind: str | Database, folder: Path, user: User | None = None, pool: str = "prefork", **settings: Any
) -> Iterator[Stage]:
    """Start a worker on a database, by default a fresh one of a kind, or on Celery's own Redis backend."""
    with ExitStack() as ending:
        with or_skip("redis"):
            redis = servers.server("redis")
        redis.clear()  # type: ignore[attr-defined]
        database = ending.enter_context(chosen(servers, kind))
        url = user(database) if user and database else database and database.url
        backend = {"database_url": url} if url else {"result_backend": redis.url("1")}
        yield from acted(ending, folder, database, pool, {"broker_url": redis.url(), **backend, **settings})


@contextmanager
def chosen(servers: Pool, kind: str | Database) -> Iterator[Database | None]:
    """The database to work on; none where the results go to Redis."""
    if isinstance(kind, Database) or kind == "redis":
        yield kind if isinstance(kind, Database) else None
    else:
        with or_skip(kind), servers.database(kind) as database:
            yield database


def acted(
    ending: ExitStack, folder: Path, database: Database | None, pool: str, settings: dict[str, Any]
) -> Iterator[Stage]:
    """Start the worker and the caller's app."""
    complete = settings_for(
        folder,
        settings.pop("result_backend", "sql"),
        **{
            "broker_transport_options": {},
            "imports": ["chords.app"],
            "task_track_started": False,
            "worker_prefetch_multiplier": 8,
            **settings,
        },
    )
    size = 2 if pool == "prefork" else 20
    worker, app = Worker(folder, complete, f"--pool={pool}", f"--concurrency={size}"), make_app(complete)
    ending.callback(close, app, database)
    ending.enter_context(running(worker))
    yield Stage(app, worker, folder, database)
