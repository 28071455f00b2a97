"""Clusters of servers for tests, by name: what each test of this folder, and `scripts/soak --clusters`, goes through.

with CLUSTERS["pair-hosts"].make() as cluster:
    cluster.faults["planned switchovers"].befall(cluster)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from clusters.cluster import Cluster
from clusters.galera import Galera
from clusters.pair import Pair
from clusters.patroni import PatroniCluster

#: An HAProxy as it is usually set up, and one that is slow to notice and leaves sessions where they are.
QUICK = {"every": 1.0, "fall": 2, "rise": 1}
SLOW = {"every": 2.0, "fall": 3, "rise": 2, "shuts": False}
#: What Patroni's own example says: https://github.com/patroni/patroni/blob/master/haproxy.cfg
EXAMPLE = {"every": 3.0, "fall": 3, "rise": 2}


class Kind(NamedTuple):
    """A kind of cluster, and how one is made."""

    cluster: type[Cluster]
    options: Mapping[str, Any] = {}

    def make(self) -> Cluster:
        """One of these, which is to be entered.

        Raises:
            Missing: when it is entered, and its programs are not installed.
        """
        return self.cluster(**self.options)


CLUSTERS: dict[str, Kind] = {
    "pair-hosts": Kind(Pair),
    "pair-haproxy": Kind(Pair, {"proxy": QUICK}),
    "pair-slow-haproxy": Kind(Pair, {"proxy": SLOW}),
    "patroni-haproxy": Kind(PatroniCluster, {"proxy": EXAMPLE}),
    "galera-haproxy": Kind(Galera, {"proxy": QUICK}),
    "galera-slow-haproxy": Kind(Galera, {"proxy": SLOW, "asks": False}),
}
