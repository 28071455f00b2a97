"""The axes on which users differ, as data: add a value here, and the covering array finds the combinations for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.pool import NullPool, QueuePool

Settings = dict[str, Any]
#: A value for each axis.
Crossing = Mapping[str, str]

#: The schema of the tables, and that of a tenant.
OWN, TENANT = "own", "tenant"


def engine(**options: Any) -> Settings:
    """The setting for options of the engine."""
    return {"database_engine_options": options}


def callback(name: str) -> Settings:
    """The setting for whoever is told of each new engine."""
    return {"database_engine_callback": f"crossings.listeners.{name}"}


#: The settings of each value of each axis. The first value of an axis is the usual one, and fits to all others. What a
#: value needs beside settings (a server, a schema, old tables), `place` makes.
AXES: dict[str, dict[str, Settings]] = {
    "database": {
        "postgresql+psycopg": {},
        "postgresql+psycopg2": {},
        "postgresql+pg8000": {},
        "mariadb": {},
        "sqlite": {},
        "sqlite-in-memory": {},
        "portable": {},
    },
    "pool": {
        "usual-pool": {},
        "NullPool": engine(poolclass=NullPool),
        "QueuePool": engine(poolclass=QueuePool),
        "one-connection": engine(pool_size=1, max_overflow=0, pool_timeout=5),
        "short-lived": {"database_short_lived_sessions": True},
    },
    "tables": {"new": {}, "of-5.2.7": {}, "of-5.6.3": {}, "timestamptz": {}},
    "names": {
        "usual-names": {},
        "own-names": {"database_table_names": {"task": "results", "group": "sets"}},
        "own-schema": {"database_table_schemas": {"task": OWN, "group": OWN}},
        "own-group": {"database_table_names": {"group": "sets"}},
    },
    "execution": {
        "no-options": {},
        "serializable": engine(isolation_level="SERIALIZABLE"),
        "autocommit": engine(execution_options={"isolation_level": "AUTOCOMMIT"}),
        "tenant": engine(execution_options={"schema_translate_map": {None: TENANT}}),
    },
    "way": {"direct": {}, "pgbouncer-session": {}, "pgbouncer-transaction": {}},
    "worker": {"threads-here": {}, "solo-here": {}, "prefork": {}, "threads": {}},
    "waiting": {"listening": {}, "polling": {"database_listen": False}},
    # A caller makes results of ids by the classes of the app, which are ours, or by Celery's own.
    "classes": {"celerys-classes": {}, "our-classes": {}},
    "listener": {
        "nobody-listens": {},
        "before-execute": callback("before"),
        "after-execute": callback("after"),
        "echo": engine(echo=True),
    },
    "kept": {
        "plain": {},
        "extended": {"result_extended": True},
        "outcome-only": {"database_record_tasks": False},
        "redacted": {"result_extended": True, "database_redact": ["token"]},
    },
    "serializer": {
        name: {"result_serializer": name, "result_accept_content": ["json", name]}
        for name in ("json", "pickle", "msgpack")
    },
    "compression": {
        "uncompressed": {},
        "gzip": {"result_compression": "gzip"},
        "zstd": {"result_compression": "zstd"},
    },
    # What the database cannot take at once goes to the spool at once.
    "spool": {"no-spool": {}, "spool": {"database_retry_window": 0.2}},
    "chords": {
        "native-chords": {},
        "celerys-chords": {"database_native_chords": False, "result_chord_retry_interval": 0.1},
    },
    "started": {"not-started": {}, "track-started": {"task_track_started": True}},
    "zone": {"server-in-UTC": {}, "server-in-Shanghai": {}},
    "clock": {
        "app-in-UTC": {},
        "app-in-Tokyo": {"timezone": "Asia/Tokyo"},
        "local-time": {"enable_utc": False, "timezone": "America/New_York"},
    },
}

POSTGRESQL = frozenset(name for name in AXES["database"] if name.startswith("postgresql"))
SERVERS = POSTGRESQL | {"mariadb", "portable"}
FILES = SERVERS | {"sqlite"}
BOTH_SQLITE = frozenset({"sqlite", "sqlite-in-memory"})
USUAL = frozenset({"usual-names"})
NO_TENANT = frozenset(AXES["execution"]) - {"tenant"}

#: What a value needs of another axis.
NEEDS: dict[str, dict[str, frozenset[str]]] = {
    # A database in memory ends with its connection, and no other process sees it.
    "NullPool": {"database": FILES},
    "QueuePool": {"database": FILES},
    "one-connection": {"database": FILES},
    "short-lived": {"database": FILES},
    "prefork": {"database": FILES},
    "threads": {"database": FILES},
    "tenant": {"database": POSTGRESQL},
    "own-schema": {"database": POSTGRESQL | {"mariadb"}},
    "pgbouncer-session": {"database": POSTGRESQL},
    # In autocommit pg8000 prepares in one transaction and runs in the next, which has another connection then.
    "pgbouncer-transaction": {"database": POSTGRESQL - {"postgresql+pg8000"}},
    "server-in-Shanghai": {"database": SERVERS},
    # Old tables have the usual names, in the usual schema.
    "of-5.2.7": {"database": FILES, "names": USUAL, "execution": NO_TENANT},
    "of-5.6.3": {"database": FILES, "names": USUAL, "execution": NO_TENANT},
    "timestamptz": {"database": POSTGRESQL, "names": USUAL, "execution": NO_TENANT},
}


def is_possible(crossing: Crossing) -> bool:
    """Whether some values, not necessarily one for each axis, have what they need of each other."""
    wanted = (need for value in crossing.values() for need in NEEDS.get(value, {}).items())
    return all(crossing.get(axis) in (*allowed, None) for axis, allowed in wanted)


def settings_of(crossing: Crossing) -> Settings:
    """The settings of all values."""
    found: Settings = {}
    for axis, value in crossing.items():
        merge(found, AXES[axis][value])
    return found


def merge(into: Settings, more: Settings) -> None:
    """Add settings; those that are dicts on both sides become one."""
    for name, value in more.items():
        if isinstance(value, dict):
            merge(into.setdefault(name, {}), value)
        else:
            into[name] = value
