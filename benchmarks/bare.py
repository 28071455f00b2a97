"""The database's driver alone, sending what our backend sends: what is left to win."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import event

Parameters = Mapping[str, Any] | Sequence[Any]


class Driver:
    """One connection in autocommit on which the backend's own statements are repeated, parameters already encoded."""

    def __init__(self, ours: Any) -> None:
        self._ours = ours
        self._engine = ours.app.backend.database.engine
        dialect = self._engine.dialect
        arguments, keywords = dialect.create_connect_args(self._engine.url)
        self._connection = dialect.connect(*arguments, **keywords)
        dialect.set_isolation_level(self._connection, "AUTOCOMMIT")
        self._statements: dict[str, tuple[str, str, Parameters]] = {}

    def store(self, task_id: str, result: Any, state: str) -> None:
        """Send the upsert of our backend for this state."""
        if state not in self._statements:
            self._learn(state, lambda known_id: self._ours.store(known_id, result, state))
        self._execute(state, task_id).close()

    def read(self, task_id: str) -> Any:
        """Send the query of our backend, and leave the row as it is."""
        if "read" not in self._statements:
            self._learn("read", self._ours.read)
        cursor = self._execute("read", task_id)
        row = cursor.fetchone()
        cursor.close()
        return row

    def _execute(self, what: str, task_id: str) -> Any:
        statement, known_id, parameters = self._statements[what]
        cursor = self._connection.cursor()
        cursor.execute(statement, _replaced(parameters, known_id, task_id))
        return cursor

    def _learn(self, what: str, operation: Callable[[str], object]) -> None:
        """Run the operation with our backend and remember the statement that names the task."""
        known_id = str(uuid.uuid4())

        def sent(_connection: Any, _cursor: Any, statement: str, parameters: Parameters, *_: Any) -> None:
            values = parameters.values() if isinstance(parameters, Mapping) else parameters
            if known_id in values:
                self._statements.setdefault(what, (statement, known_id, parameters))

        event.listen(self._engine, "before_cursor_execute", sent)
        try:
            operation(known_id)
        finally:
            event.remove(self._engine, "before_cursor_execute", sent)


def _replaced(parameters: Parameters, old: str, new: str) -> Parameters:
    if isinstance(parameters, Mapping):
        return {name: new if value == old else value for name, value in parameters.items()}
    return tuple(new if value == old else value for value in parameters)
