"""What tests of coroutines share: loops, something to await beside them, and what is left when they have ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from celery_sql_results import DatabaseBackend
from waiting.conftest import PATIENCE
from waiting.writer import Writer


async def until(condition: Callable[[], object], what: str = "what was awaited") -> None:
    """Return when a condition holds; the loop goes on meanwhile."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"{what} did not come"
        await asyncio.sleep(0.005)


async def until_awaited(backend: DatabaseBackend, *task_ids: str) -> None:
    """Return when some tasks are awaited."""
    await until(lambda: set(backend.looker.awaited()) >= set(task_ids), "the wait")


def in_a_loop(main: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns, in a loop of its own; a loop that stands still ends the test."""
    return asyncio.run(asyncio.wait_for(main, 2 * PATIENCE))


def beside(function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
    """Call something in a thread, and go on."""
    return asyncio.ensure_future(asyncio.to_thread(function, *args))


async def collect(things: AsyncIterator[Any], into: list[Any]) -> None:
    """Append what comes, also where an error ends it."""
    async for each in things:
        into.append(each)  # noqa: PERF401 - a comprehension would give nothing then


def begun() -> list[str]:
    """The threads of ours that are there only while a backend connects for the first time."""
    return [each.name for each in threading.enumerate() if each.name == "celery-sql-results-begin"]


def result_of(backend: DatabaseBackend, task_id: str = "t", **more: Any) -> Any:
    """The result object of a task."""
    return backend.app.AsyncResult(task_id, **more)


def group_of(backend: DatabaseBackend, *results: Any) -> Any:
    """A group of results, or of tasks by their ids."""
    members = [result_of(backend, each) if isinstance(each, str) else each for each in results]
    return backend.app.GroupResult("g", members)


async def stored_later(backend: DatabaseBackend, writer: Writer, awaited: Any, *stored: tuple[Any, ...]) -> Any:
    """What is awaited, where another process stores what it needs as soon as it is awaited."""
    task = asyncio.ensure_future(awaited)
    await until(backend.looker.awaited, "the wait")
    for each in stored:
        await asyncio.to_thread(writer.store, *each)
    return await task
