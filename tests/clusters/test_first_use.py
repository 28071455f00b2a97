"""Twenty processes use a cluster for the first time, by all its entrances at once: one sets it up, and nobody errs."""

from __future__ import annotations

import os
import threading
from itertools import cycle

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from clusters.cluster import Cluster
from concurrency.actors import quick, set_up_and_store
from concurrency.nursery import Nursery, Outcome, complaints, errors
from faults.load import until

PROCESSES, ROUNDS = 20, int(os.environ.get("CLUSTER_ROUNDS", "5"))
#: Those with the most entrances.
everywhere = pytest.mark.parametrize("cluster", ["pair-haproxy", "patroni-haproxy"], indirect=True)


def serves(url: str) -> bool:
    """Whether an entrance leads to a server: a proxy that has just started has not looked yet."""
    try:
        with sa.create_engine(url, poolclass=sa.NullPool).connect():
            return True
    except DBAPIError:
        return False


def renewed(cluster: Cluster) -> None:
    """An empty database, which is reached by all entrances."""
    cluster.renew()
    for url in cluster.entrances:
        until(lambda url=url: serves(url), f"{url} serves")  # type: ignore[misc]


def start(nursery: Nursery, cluster: Cluster) -> list[Outcome]:
    """Let processes store one result each, each by another entrance than the next."""
    ways = zip(range(PROCESSES), cycle(cluster.entrances), strict=False)
    return nursery.at_once([(set_up_and_store, (url, f"task-{number}")) for number, url in ways])


def found(cluster: Cluster) -> tuple[int, int]:
    """How many versions are noted, and how many results."""
    engine = sa.create_engine(cluster.url, poolclass=sa.NullPool, **quick(cluster.url))
    tables = ("celery_taskmeta_version", "celery_taskmeta")
    with engine.connect() as connection:
        versions, results = (connection.scalar(sa.text(f"SELECT count(*) FROM {table}")) for table in tables)
    return versions, results


@everywhere
def test_all_at_once(cluster: Cluster, nursery: Nursery) -> None:
    for _ in range(ROUNDS):
        renewed(cluster)
        outcomes = start(nursery, cluster)

        assert errors(outcomes) == []
        assert complaints(outcomes) == []
        assert found(cluster) == (1, PROCESSES)


@everywhere
def test_while_the_primary_fails(cluster: Cluster, nursery: Nursery) -> None:
    """Whoever starts meanwhile waits for the new one."""
    renewed(cluster)
    fault = next(iter(cluster.faults.values()))
    failing = threading.Thread(target=fault.befall, args=(cluster,))
    failing.start()
    outcomes = start(nursery, cluster)
    failing.join()

    assert errors(outcomes) == []
    assert found(cluster) == (1, PROCESSES)
