"""Fixtures of these tests: clusters, and such as workers store on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from typing_extensions import Self

from clusters import CLUSTERS
from clusters.cluster import Cluster
from clusters.load import workers_on
from clusters.scene import Report, Stage
from concurrency.nursery import Nursery
from faults.load import Verdict
from servers.pool import Pool, or_skip


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The cluster that the test names, for all its tests that follow."""
    with or_skip(request.param), CLUSTERS[request.param].make() as cluster:
        yield cluster


class Stages:
    """The stage that was asked for last, on a cluster that is whole; a context manager."""

    def __init__(self, nursery: Nursery, broker: str, folder: Path) -> None:
        self._nursery, self._broker, self._folder = nursery, broker, folder
        self._kind, self._open = "", ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self._kind = ""

    def on(self, kind: str) -> Stage:
        """A cluster of a kind, and workers that store there."""
        if kind != self._kind:
            self.__exit__()
            cluster = self._open.enter_context(CLUSTERS[kind].make())
            self._open.enter_context(workers_on(cluster.url, self._broker, self._folder))
            self._kind, self._stage = kind, Stage(cluster, self._nursery, self._broker)
        return self._stage

    def play(self, kind: str, fault: str, folder: Path) -> Report:
        """Play a scene. A cluster on which something went wrong is not used again."""
        report = self.on(kind).play(fault, folder)
        if report.verdict != Verdict():
            self.__exit__()
        return report


@pytest.fixture(scope="module")
def stages(servers: Pool, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    """Where scenes are played; a cluster serves all that follow each other."""
    with or_skip("redis"):
        broker = servers.server("redis").url("0")
    with Stages(nursery, broker, tmp_path_factory.mktemp("workers")) as stages:
        yield stages


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """For the journals of a load."""
    folder = tmp_path / "load"
    folder.mkdir()
    return folder
