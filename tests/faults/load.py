"""A load: processes that store and processes that wait, while something goes wrong; and what became of their results.

with Load(nursery, database.url, folder) as load:
    for _ in range(10):
        load.go_on()
        kill(database)
assert load.verdict() == Verdict()
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from typing_extensions import Self

from concurrency.nursery import Call, Nursery, Outcome, errors
from faults.actors import CALLED, FAILED, HUNG, LONGEST, RAN, RETRIED, RETURNED, WRONG, value_of, wait, write

#: Processes that store, and processes that wait.
WRITERS, WAITERS = 4, 2
#: Stores that must return before the next fault: some of each writer's.
SOME = 40
#: Seconds in which an awaited event must come; generous, since a loaded machine is slow.
PATIENCE = 90.0
#: Seconds between two looks.
TICK = 0.02

#: A row: its state, and what is stored.
Row = tuple[str, bytes]


def until(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Return when a condition holds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {patience:.0f} s"
        time.sleep(TICK)


@dataclass(frozen=True)
class Verdict:
    """What went wrong in the end, by id or message; nothing should have."""

    #: Acknowledged, or told to somebody who waited, but not there.
    lost: tuple[str, ...] = ()
    #: Called, but never there.
    missing: tuple[str, ...] = ()
    #: There, or told to somebody who waited, but not what was stored.
    wrong: tuple[str, ...] = ()
    #: More than one row.
    twice: tuple[str, ...] = ()
    #: The body of a chord that ran more than once.
    repeated: tuple[str, ...] = ()
    #: An error was raised.
    failed: tuple[str, ...] = ()
    #: A wait, or a process, that did not end.
    hung: tuple[str, ...] = ()

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


class Load:
    """Writers and waiters at work on one database, each in a process of its own; a context manager.

    Args:
        url: where they store.
        folder: empty, for their journals; its name is the prefix of all ids.
        direct: the URL under which the rows are looked at in the end, if another.
        settings: on top of those that each load has.
        others: more processes; each keeps a journal in the folder, whose name has a dash.
    """

    def __init__(
        self,
        nursery: Nursery,
        url: str,
        folder: Path,
        *,
        writers: int = WRITERS,
        waiters: int = WAITERS,
        direct: str | None = None,
        settings: Mapping[str, Any] | None = None,
        others: Sequence[Call] = (),
    ) -> None:
        self._nursery, self._folder, self._direct = nursery, folder, direct or url
        self._calls = [
            *((write, (url, folder, settings or {}, writer, waiters)) for writer in range(writers)),
            *((wait, (url, folder, settings or {}, waiter, writers)) for waiter in range(waiters)),
            *others,
        ]
        self._outcomes: list[Outcome] = []

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        try:
            until(lambda: len(self._working()) == len(self._calls), "all have begun")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        (self._folder / "stop").touch()
        self._thread.join()

    def _run(self) -> None:
        self._outcomes = self._nursery.at_once(self._calls)

    def _working(self) -> list[Path]:
        """The journals of those who have done something."""
        journals = (path for path in self._folder.iterdir() if path.suffix == "" and path.name != "stop")
        return [path for path in journals if f"\n{RETURNED}" in path.read_text()]

    # -- while it runs -------------------------------------------------------------------------------------------

    def noted(self, mark: str, who: str = "") -> list[str]:
        """What those whose name begins with ``who`` have noted under a mark."""
        lines = (line for path in self._folder.glob(f"{who}*-*") for line in path.read_text().splitlines())
        return [line[1:] for line in lines if line.startswith(mark)]

    def go_on(self, stores: int = SOME) -> None:
        """Return when some more stores have returned."""
        self._await(RETURNED, stores, "stores return")

    def stand_still(self, retries: int = WRITERS) -> None:
        """Return when some more retries have been logged."""
        self._await(RETRIED, retries, "stores are tried again")

    def _await(self, mark: str, more: int, what: str) -> None:
        wanted = len(self.noted(mark, "writer")) + more
        until(lambda: len(self.noted(mark, "writer")) >= wanted or not self._thread.is_alive(), what)
        assert self._thread.is_alive(), errors(self._outcomes)

    # -- afterwards ----------------------------------------------------------------------------------------------

    def longest(self, who: str = "writer") -> float:
        """The seconds that the longest operation took that has ended."""
        return max(map(float, self.noted(LONGEST, who)), default=0.0)

    def verdict(self) -> Verdict:
        """What went wrong, now that all have ended."""
        rows, told = self._rows(), set(self.noted(RETURNED))
        gone = {*told, *self.noted(CALLED, "writer"), *self.noted(CALLED, "caller")} - {task_id for task_id, _ in rows}
        return Verdict(
            lost=tuple(sorted(gone & told)),
            missing=tuple(sorted(gone - told)),
            wrong=(*self.noted(WRONG), *(task_id for task_id, row in rows if not is_right(task_id, row))),
            twice=repeated(task_id for task_id, _ in rows),
            repeated=repeated(self.noted(RAN)),
            failed=tuple(self.noted(FAILED)),
            hung=(*self.noted(HUNG), *errors(self._outcomes)),
        )

    def _rows(self) -> list[tuple[str, Row]]:
        engine = sa.create_engine(self._direct, poolclass=sa.NullPool)
        query = sa.text("SELECT task_id, status, result FROM celery_taskmeta WHERE task_id LIKE :ours")
        with engine.connect() as connection:
            rows = connection.execute(query, {"ours": f"{self._folder.name}-%"}).all()
        return [(task_id, (status, bytes(result))) for task_id, status, result in rows]


def repeated(ids: Iterable[str]) -> tuple[str, ...]:
    """Those that come more than once."""
    return tuple(id_ for id_, number in Counter(ids).items() if number > 1)


def is_right(task_id: str, row: Row) -> bool:
    """Whether a row is what was stored."""
    return row[0] == "SUCCESS" and json.loads(row[1]) == value_of(task_id)
