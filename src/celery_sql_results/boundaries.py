"""Where code that may raise anything is called: drivers, serializers, callbacks, whatever is stored in a row.

A broad ``except`` hides a time limit of the task that runs, and whoever adds one must think of that. So the two kinds
that are needed stand here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from billiard.exceptions import SoftTimeLimitExceeded
from typing_extensions import Self

__all__ = ["caught", "undone"]


class caught:
    """Keeps the exception that the block raises in :attr:`error`, but lets pass what is not the block's own.

    That is the soft time limit of a task, unless it is among the ``also`` caught, and what is no ``Exception``.
    """

    def __init__(self, *also: type[BaseException]) -> None:
        self._also = also
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        is_own = isinstance(error, Exception) and not isinstance(error, SoftTimeLimitExceeded)
        if is_own or isinstance(error, self._also):
            self.error = error
            return True
        return False


@contextmanager
def undone(undo: Callable[[], object]) -> Iterator[None]:
    """Call ``undo`` if the block raises, whatever it raises: a time limit strikes anywhere."""
    try:
        yield
    except BaseException:
        undo()
        raise
