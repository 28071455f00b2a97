"""What an error of the database means: one verdict for each, on which everybody acts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from celery_sql_results.dialects import DefaultImpl

__all__ = ["Judge", "Verdict"]


def always() -> bool:
    """What is so for whoever knows no better."""
    return True


class Verdict(NamedTuple):
    """What is known of an error. Where nothing is, trying again would not help.

    Attributes:
        passes: the same operation may succeed later.
        refusal: why the database will never take these values.
        timed_out: the server ended the statement because it took too long.
        lost: the connection is gone: on another one, the same may succeed at once.
        time_limit: it is the soft time limit of the task.
    """

    passes: bool = False
    refusal: str | None = None
    timed_out: bool = False
    lost: bool = False
    time_limit: bool = False


class Judge:
    """Gives the verdict on an error.

    Args:
        impl: knows the errors of its database.
        engine: gives the engine; a server that hangs up on a large statement is asked for its limit.
        was_reached: whether this database has taken us before. Then whatever it has against us now, such as a password
            that is being changed, may pass.
    """

    def __init__(
        self, impl: DefaultImpl, engine: Callable[[], Engine], was_reached: Callable[[], bool] = always
    ) -> None:
        self._impl = impl
        self._engine = engine
        self._was_reached = was_reached

    def __call__(self, error: BaseException) -> Verdict:
        """Judge an error once; where the server hung up on a large statement, that takes a query."""
        if isinstance(getattr(error, "orig", error), SoftTimeLimitExceeded):  # SQLAlchemy may have wrapped it
            return Verdict(time_limit=True)
        self._impl.leave_rows_out(error)  # whoever shows it from here on
        refusal = self._impl.refusal(error, self._engine())
        if refusal is not None:
            return Verdict(refusal=refusal)
        is_unwanted = self.needed(error) is not None
        if not (self._was_reached() if is_unwanted else self._impl.is_transient(error)):
            return Verdict()
        lost = bool(getattr(error, "connection_invalidated", False))
        return Verdict(passes=True, timed_out=self._impl.is_timed_out(error), lost=lost)

    def needed(self, error: BaseException) -> str | None:
        """What somebody must change before a connection can succeed; ``None`` if that is not what is wrong."""
        return self._impl.needed(error, self._engine().url) if isinstance(error, DBAPIError) else None

    def passes(self, error: BaseException) -> bool:
        """Whether the same operation may succeed later. Errors of anything but a database do not."""
        return isinstance(error, SQLAlchemyError) and self(error).passes
