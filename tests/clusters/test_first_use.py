"""Twenty processes use a cluster for the first time, by all its entrances at once: one sets it up, and nobody errs."""

from __future__ import annotations

import threading
from itertools import cycle

import pytest
import sqlalchemy as sa

from clusters.cluster import Cluster
from concurrency.actors import quick, set_up_and_store
from concurrency.nursery import Nursery, Outcome, complaints, errors

PROCESSES, ROUNDS = 20, 20
#: Those with the most entrances.
everywhere = pytest.mark.parametrize("cluster", ["pair-haproxy", "patroni-haproxy"], indirect=True)


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
        cluster.renew()
        outcomes = start(nursery, cluster)

        assert errors(outcomes) == []
        assert complaints(outcomes) == []
        assert found(cluster) == (1, PROCESSES)


@everywhere
def test_while_the_primary_fails(cluster: Cluster, nursery: Nursery) -> None:
    """Whoever starts meanwhile waits for the new one."""
    cluster.renew()
    fault = next(iter(cluster.faults.values()))
    failing = threading.Thread(target=fault.befall, args=(cluster,))
    failing.start()
    outcomes = start(nursery, cluster)
    failing.join()

    assert errors(outcomes) == []
    assert found(cluster) == (1, PROCESSES)
