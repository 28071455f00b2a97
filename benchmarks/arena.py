"""Where contenders meet: real servers with durable settings, and a fresh database for each entry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

from benchmarks.contenders import CONTENDERS, VARIANTS, Entry, install
from benchmarks.player import Player
from servers import Missing, Redis, Server
from servers.redis import REMEDY

#: A commit is on the disk when the server says so; the rest is what the servers come with.
DURABLE: Mapping[str, Mapping[str, str]] = {
    "postgresql": {
        "fsync": "on",
        "full_page_writes": "on",
        "shared_buffers": "128MB",
        "synchronous_commit": "on",
        "wal_init_zero": "on",
    },
    "mariadb": {
        "innodb_buffer_pool_size": "128M",
        "innodb_flush_log_at_trx_commit": "1",
        "innodb_log_file_size": "96M",
    },
    "sqlite": {},
}
#: A Redis that does what the others do: it answers when what it was told is on the disk.
SYNCED = {"appendonly": "yes", "appendfsync": "always"}
#: How a server is asked what it really does, and what it must answer.
PROOFS: Mapping[str, Mapping[str, Any]] = {
    "postgresql": {"SHOW fsync": "on", "SHOW full_page_writes": "on", "SHOW synchronous_commit": "on"},
    "mariadb": {"SELECT @@innodb_flush_log_at_trx_commit": 1},
    "sqlite": {"PRAGMA synchronous": 2},
}
VERSIONS = {"postgresql": "SHOW server_version", "mariadb": "SELECT VERSION()", "sqlite": "SELECT sqlite_version()"}


@dataclass(frozen=True)
class Scale:
    """How long a run may take; times in seconds."""

    rounds: int
    #: The length of a round that repeats something short.
    length: float
    #: The most that one round may take: then it counts as a time-out.
    patience: float
    #: After this long a contender plays no further round of a benchmark.
    budget: float


FULL = Scale(rounds=11, length=0.3, patience=60, budget=45)
QUICK = Scale(rounds=3, length=0.05, patience=20, budget=8)


class Arena:
    """One database server, running, and Redis if it could be started."""

    def __init__(self, server: Server, redis: Redis | None, scale: Scale) -> None:
        self.server = server
        self.scale = scale
        self._redis = redis
        self._numbers = count(1)
        server.create_database("proof")
        self.settings = {question: self._ask(question) for question in PROOFS[server.kind]}
        self.version = str(self._ask(VERSIONS[server.kind]))
        if self.settings != PROOFS[server.kind]:
            raise RuntimeError(f"{server.kind} is not durable: {self.settings}, needed {PROOFS[server.kind]}")

    def _ask(self, question: str) -> Any:
        return self.server.execute(question, database="proof")[0][0]

    @contextmanager
    def entry(self, contender: str) -> Iterator[Entry]:
        """An entry on an empty database, which is dropped afterwards; its tables exist if its users install them."""
        with self._empty(contender) as url:
            entry = Entry(contender, url)
            if contender in CONTENDERS and CONTENDERS[contender].installs:
                with self.player(entry) as player:
                    player.do(install)
            yield entry

    @contextmanager
    def _empty(self, contender: str) -> Iterator[str]:
        """The URL of an empty database."""
        if contender == "redis":
            yield self.redis.url()
        elif contender == "redis-disk":
            with Redis(SYNCED) as redis:
                yield redis.url()
        else:
            name = f"benchmark_{next(self._numbers)}"
            self.server.create_database(name)
            try:
                yield self.server.url(name)
            finally:
                self.server.drop_database(name)

    def player(self, entry: Entry, *, forked: bool = False) -> Player:
        """A process that plays an entry."""
        return Player(entry, self.scale.patience, forked=forked)

    @property
    def redis(self) -> Redis:
        """The Redis server.

        Raises:
            Missing: it is not installed.
        """
        if self._redis is None:
            raise Missing(f"redis-server was not found. {REMEDY}")
        return self._redis

    def broker(self, contender: str) -> str:
        """The URL of a broker for one contender, the same kind for all.

        Raises:
            Missing: Redis is not installed.
        """
        return self.redis.url(str(1 + [*CONTENDERS, *VARIANTS].index(contender)))

    def clear(self) -> None:
        """Forget what Redis holds."""
        if self._redis:
            self._redis.clear()
