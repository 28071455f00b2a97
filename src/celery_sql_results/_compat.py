"""Names of other libraries that are not public, all in one place.

Each makes something quicker, or closes a gap that the public way leaves. A release of its library may drop it: then
``private`` gives ``None``, one warning says so, and who asked for it goes the public way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import reduce
from importlib import import_module
from typing import Any, Final, Generic, TypeVar, overload

from typing_extensions import Self

__all__ = ["COMPILED", "COMPILER", "POOL", "PRIVATE", "PSYCOPG", "QUICK", "are_there", "memoized_property", "private"]

T = TypeVar("T")
logger = logging.getLogger(__name__)

_PINGED = "each connection is pinged before each use, which is a round trip more"
_SLOWER = "statements go through SQLAlchemy's connections, which takes longer"
_TRUSTING = "on PostgreSQL, who may create in a schema of the search_path can let this role run operators of theirs"

#: What :mod:`.connections.pool` overrides and calls.
POOL: Final = (
    "sqlalchemy.pool:QueuePool._do_get",
    "sqlalchemy.pool:QueuePool._do_return_conn",
    "sqlalchemy.pool:QueuePool._queue_class",
    "sqlalchemy.pool:Pool._dialect",
    "sqlalchemy.pool:Pool._invalidate",
    "sqlalchemy.engine:Engine._sqla_logger_namespace",
    "sqlalchemy.util.queue:Empty",
    "sqlalchemy.util.queue:Full",
)
#: How :mod:`.connections.quick` sees who listens, takes a connection, and tells an error as SQLAlchemy does.
QUICK: Final = (
    "sqlalchemy.engine:Engine._has_events",
    "sqlalchemy.engine.default:DefaultDialect._has_events",
    "sqlalchemy.engine.default:DefaultDialect.dispatch",
    "sqlalchemy.pool:Pool.dispatch",
    "sqlalchemy.pool.base:_ConnectionRecord.get_connection",
    "sqlalchemy.exc:DBAPIError.instance",
)
#: How :mod:`.connections.psycopg3` speaks to the server without a cursor.
PSYCOPG: Final = (
    "psycopg:Connection.wait",
    "psycopg.generators:execute",
    "psycopg.adapt:Transformer.dump_sequence",
    "psycopg.adapt:Transformer.formats",
    "psycopg.adapt:Transformer.load_rows",
    "psycopg.adapt:Transformer.set_pgresult",
    "psycopg.errors:error_from_result",
)

#: What it does to values that a driver does not take as they are.
COMPILED: Final = ("sqlalchemy.sql.compiler:SQLCompiler._bind_processors",)
#: What :mod:`.dialects.postgresql_names` overrides.
COMPILER: Final = (
    "sqlalchemy.sql.compiler:SQLCompiler.visit_binary",
    "sqlalchemy.sql.compiler:SQLCompiler.visit_sequence",
)

#: What is lost without a name. Each is written as ``module:attribute.attribute``.
PRIVATE: Final[dict[str, str]] = {
    "celery.worker.state:active_requests": "nobody is told how many tasks a worker runs just now",
    "kombu.serialization:registry._decoders": "results are read with kombu's checks around each, which takes longer",
    "kombu.serialization:registry._encoders": "results are written with kombu's checks around each, which takes longer",
    **dict.fromkeys(POOL, _PINGED),
    **dict.fromkeys(COMPILER, _TRUSTING),
    **dict.fromkeys((*QUICK, *PSYCOPG, *COMPILED), _SLOWER),
}

_told: set[str] = set()


def private(name: str) -> Any | None:
    """What stands under a name of :data:`PRIVATE`, or ``None`` if its library does not have it any more."""
    module, _, attributes = name.partition(":")
    try:
        return reduce(getattr, attributes.split("."), import_module(module))
    except (ImportError, AttributeError):
        if name not in _told:
            _told.add(name)
            logger.warning("%s is not there in this release: %s", name, PRIVATE[name])
        return None


def are_there(names: tuple[str, ...]) -> bool:
    """Whether all of these names of :data:`PRIVATE` are there."""
    return all(private(name) is not None for name in names)


class memoized_property(Generic[T]):
    """A property that is computed once, and then an attribute of its object.

    Threads that ask at the same time may compute it twice, and get the same. No lock is held, which a fork could
    inherit: that of ``functools.cached_property`` before Python 3.12, while SQLAlchemy's own is not public.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type[Any]) -> T: ...

    def __get__(self, instance: object | None, owner: type[Any]) -> Self | T:
        if instance is None:
            return self
        made: T = vars(instance).setdefault(self._name, self._compute(instance))
        return made
