"""What a cluster is to those who test on it: nodes, a way to them, and what may befall it."""

from __future__ import annotations

import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, NamedTuple

#: Seconds that something lasts, at least and at most.
A_WHILE = (1.0, 4.0)
#: Seconds between two writes that look for a node that takes them, and after one that none has taken.
TICK, PAUSE = 0.02, 0.1
#: Seconds in which a write that looks must have ended when it is not needed any more; else it is left behind.
PATIENCE = 5.0


class Fault(NamedTuple):
    """What may befall a cluster, which is whole again when it is over.

    Attributes:
        befall: lets it happen.
        is_rough: connections and answers may be lost, so that a body of a chord may run again.
    """

    befall: Callable[[Any], object]
    is_rough: bool = True


class Node(ABC):
    """A server of a cluster."""

    name: str

    @abstractmethod
    def url(self) -> str:
        """The SQLAlchemy URL of the results on this node alone."""

    @abstractmethod
    def writing(self) -> AbstractContextManager[Callable[[], object]]:
        """A connection of its own, and what writes something on it that is committed as results are."""


class Cluster(ABC):
    """Some nodes that hold the same results; a context manager.

    Attributes:
        nodes: all of them.
        faults: what may befall it, by name.
    """

    faults: ClassVar[Mapping[str, Fault]]
    nodes: Sequence[Node]

    def __init__(self, seed: int | None = None) -> None:
        self.chance = random.Random(seed)

    @property
    @abstractmethod
    def url(self) -> str:
        """The SQLAlchemy URL of the results, that leads to a node that takes writes."""

    @property
    def entrances(self) -> Sequence[str]:
        """The URLs that lead to the results by all ways that there are; each takes writes."""
        return [self.url]

    @abstractmethod
    def renew(self) -> None:
        """Empty the database of the results, on all nodes."""

    @abstractmethod
    def version(self) -> str:
        """The releases of its programs."""

    @abstractmethod
    def __enter__(self) -> Cluster: ...

    @abstractmethod
    def __exit__(self, *_: object) -> None: ...

    def last(self) -> None:
        """Let something last for a while."""
        time.sleep(self.chance.uniform(*A_WHILE))


class Watch:
    """Writes on all nodes for the length of a block, to know for how long none took it."""

    def __init__(self) -> None:
        self.longest, self._last, self._lock = 0.0, time.monotonic(), threading.Lock()
        self.stopped = threading.Event()

    def note(self) -> None:
        """A node has taken a write, or the end has come."""
        with self._lock:
            now = time.monotonic()
            self.longest, self._last = max(self.longest, now - self._last), now

    def run(self, node: Node) -> None:
        """Write on one node until stopped."""
        while not self.stopped.is_set():
            try:
                with node.writing() as write:
                    while not self.stopped.wait(TICK):
                        write()
                        self.note()
            except Exception:  # noqa: BLE001 - in each driver's own words: this node takes none
                self.stopped.wait(PAUSE)


@contextmanager
def watched(cluster: Cluster) -> Iterator[Watch]:
    """Watch a cluster; `longest` is the seconds for which no node has taken a write."""
    watch = Watch()
    threads = [threading.Thread(target=watch.run, args=(node,), daemon=True) for node in cluster.nodes]
    for thread in threads:
        thread.start()
    try:
        yield watch
    finally:
        watch.note()
        watch.stopped.set()
        for thread in threads:
            thread.join(PATIENCE)
