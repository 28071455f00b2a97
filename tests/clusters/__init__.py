"""Clusters of servers for tests, by name: what each test of this folder, and `scripts/soak --clusters`, goes through.

with CLUSTERS["pair, several hosts"]() as cluster:
    cluster.faults["planned switchovers"].befall(cluster)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from clusters.cluster import Cluster
from clusters.galera import Galera
from clusters.pair import Pair

#: An HAProxy as it is usually set up, and one that is slow to notice and leaves sessions where they are.
QUICK = {"every": 1.0, "fall": 2, "rise": 1}
SLOW = {"every": 2.0, "fall": 3, "rise": 2, "shuts": False}

CLUSTERS: dict[str, Callable[[], Cluster]] = {
    "pair-hosts": Pair,
    "pair-haproxy": partial(Pair, QUICK),
    "pair-slow-haproxy": partial(Pair, SLOW),
    "galera-haproxy": partial(Galera, QUICK),
    "galera-slow-haproxy": partial(Galera, SLOW, asks=False),
}
