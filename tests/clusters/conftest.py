"""Fixtures of these tests: a cluster of each kind in turn, and one whose workers are running."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clusters import CLUSTERS
from clusters.cluster import Cluster
from clusters.load import workers_on
from clusters.scene import Stage
from concurrency.nursery import Nursery
from servers.pool import Pool, or_skip


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The cluster that the test names, for all its tests that follow."""
    with or_skip(request.param), CLUSTERS[request.param].make() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def stage(
    cluster: Cluster, servers: Pool, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """The cluster, and workers that store there."""
    with or_skip("redis"):
        broker = servers.server("redis").url("0")
    cluster.renew()
    with workers_on(cluster.url, broker, tmp_path_factory.mktemp("workers")):
        yield Stage(cluster, nursery, broker)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """For the journals of a load."""
    folder = tmp_path / "load"
    folder.mkdir()
    return folder
