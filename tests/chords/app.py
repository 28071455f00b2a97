"""The app of these tests: the shop's, with tasks that leave traces, and a backend that can be told to die."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from celery import Celery, Task, group, maybe_signature
from celery.exceptions import Ignore
from celery.signals import after_task_publish, before_task_publish

from acceptance import shop
from celery_sql_results import DatabaseBackend


class MortalBackend(DatabaseBackend):
    """Kills its process, once, where it was told to; see :func:`condemn`.

    That is between the result of a part and the count of parts, or right before or right after it sends a body.
    """

    def on_chord_part_return(self, request: Any, *args: Any, **kwargs: Any) -> None:
        die_if_condemned(maybe_signature(request.chord, app=self.app).kwargs, "uncounted")
        super().on_chord_part_return(request, *args, **kwargs)


@before_task_publish.connect
def before_it_is_sent(body: Any = None, **_: Any) -> None:
    """Of a message, the second of what it holds are the keywords of its task."""
    die_if_condemned(body[1], "before")


@after_task_publish.connect
def after_it_was_sent(body: Any = None, **_: Any) -> None:
    die_if_condemned(body[1], "after")


def condemn(path: Path, moment: str) -> None:
    """Let whoever sends the body that was given `path` die `before` or `after` it does, or `uncounted`."""
    verdict(path, moment).touch()


def verdict(path: Path, moment: str) -> Path:
    """The file that condemns; gone when somebody has died for it."""
    return path.with_suffix(f".{moment}")


def die_if_condemned(keywords: Mapping[str, Any], moment: str) -> None:
    """Die at once, as when memory runs out."""
    path = keywords.get("path")
    if path and taken(verdict(Path(path), moment)):
        os.kill(os.getpid(), signal.SIGKILL)


def taken(path: Path) -> bool:
    """Whether the file was there, for the first who asks."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


class Doubled(Task):  # type: ignore[misc]
    """A task of which one message in five is sent twice, as a broker may deliver it twice: the last of a header too."""

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Send it."""
        if args[0] % 5 == 4:
            super().apply_async(args, kwargs, **options)
        return super().apply_async(args, kwargs, **options)


def number(value: Any) -> Any:
    """Return the argument: a part of a header, or a body that shows what it was given."""
    return value


def in_order(values: list[Any]) -> list[Any]:
    """Sort, where the order of the parts is not promised."""
    return sorted(values)


def note(self: Task, values: Any, path: str, due: Any = None) -> Any:
    """Be a body whose every run leaves a line."""
    append(path, self.request.id)
    return values


def note_error(request: Any, error: BaseException, traceback: Any, path: str) -> None:
    """Be an errback that leaves a line for each call: of which task, of what."""
    append(path, f"{request.id} {error!r}")


def append(path: str, line: str) -> None:
    """Add a line to a file that others write as well."""
    with open(path, "a") as file:
        file.write(f"{line}\n")


def replaced(self: Task, value: Any) -> Any:
    """Be replaced, by a group if there are several values."""
    several = isinstance(value, list)
    return self.replace(group(map(self.app.tasks["number"].s, value)) if several else self.app.tasks["number"].s(value))


def extend(self: Task, value: int) -> int:
    """Add a part to the chord of which this is a part."""
    self.add_to_chord(self.app.tasks["number"].s(value + 100))
    return value


def stamped(self: Task, values: Any = None) -> Any:
    """Show the stamps: those of the header and those of this body."""
    own = dict(self.request.stamps or {})
    return own if values is None else [values, own]


def state(self: Task, state: str, meta: Any) -> None:
    """State something of oneself, and return nothing that a worker would store."""
    self.update_state(state=state, meta=meta)
    raise Ignore


def mortal(value: int, path: str) -> int:
    """Be killed while running if the path is condemned, and run through the next time."""
    if taken(Path(path)):
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def equipped(app: Celery) -> Celery:
    """The app with the tasks of this module."""
    for task in (number, in_order, note_error, mortal):
        app.task(name=task.__name__)(task)
    for task in (note, replaced, extend, stamped, state):
        app.task(name=task.__name__, bind=True)(task)
    app.task(name="doubled", base=Doubled)(number)
    return app


def make_app(settings: Mapping[str, Any]) -> Celery:
    """An app with all tasks, as it is in a worker and in whoever calls."""
    return equipped(shop.make_app(settings))


if shop.VARIABLE in os.environ:
    equipped(shop.app)
