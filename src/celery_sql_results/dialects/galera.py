"""A server that is a node of a Galera cluster, or may become one: what it is told beside what every server is."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa

__all__ = ["Galera", "is_too_large"]

#: What a node says of a commit that is larger than ``wsrep_max_ws_size``, under the number of any other error. It is
#: not translated.
TOO_LARGE = "Maximum writeset size exceeded"

#: What tells whether a server is a node. No row: it can never be one. Its name is all that servers agree on: a query of
#: the value itself is an error on those that do not know it.
QUESTION = "SHOW VARIABLES LIKE 'wsrep_on'"
#: Each statement waits until all is here that was committed on any node before it began: 1 is for SELECT and BEGIN, 2
#: for UPDATE and DELETE, 4 for INSERT. Else a node that lags knows neither the chord of a part, nor who was elected.
CAUSAL = ", SESSION wsrep_sync_wait = @@SESSION.wsrep_sync_wait | 7"


def is_too_large(orig: BaseException) -> bool:
    """Whether a node will never take what was to be committed. If a number was drawn, it takes nothing else, either.

    That is, on the same connection, which is as good as lost.
    """
    return TOO_LARGE in str(orig)


class Galera:
    """What is known of servers by the dialects of their engines. Each is asked once, by its first connection."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[sa.Dialect, bool | None] = WeakKeyDictionary()

    def settings(self, cursor: Any, dialect: sa.Dialect) -> str:
        """What a new connection sets. Also where there is no cluster yet: a server that is alone does not wait."""
        if dialect not in self._known:
            cursor.execute(QUESTION)
            row = cursor.fetchone()
            self._known[dialect] = None if row is None else row[1] == "ON"
        return "" if self._known[dialect] is None else CAUSAL

    def is_node(self, dialect: sa.Dialect) -> bool:
        """Whether the server was a node when it was asked."""
        return bool(self._known.get(dialect))
