"""One scene: something befalls a cluster that is under load. What became of the results, and how long they took."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from clusters.cluster import Cluster, watched
from clusters.load import load_on
from concurrency.nursery import Nursery
from faults.actors import RAN, RETRIED, RETURNED
from faults.load import Load, Verdict

#: Stores that must return before something happens, and after it.
SOME = 100


@dataclass
class Report:
    """What has happened in some scenes.

    Attributes:
        stores: those that were acknowledged to whoever has called `store_result`.
        waits: those that had what was stored.
        bodies: those that have run, of chords.
        held: seconds that the longest store took.
        away: seconds for which no node of the cluster took a write, at most.
        verdict: what went wrong.
    """

    stores: int = 0
    waits: int = 0
    bodies: int = 0
    retries: int = 0
    held: float = 0.0
    away: float = 0.0
    verdict: Verdict = field(default_factory=Verdict)

    def __add__(self, other: Report) -> Report:
        return Report(
            self.stores + other.stores,
            self.waits + other.waits,
            self.bodies + other.bodies,
            self.retries + other.retries,
            max(self.held, other.held),
            max(self.away, other.away),
            self.verdict + other.verdict,
        )


@dataclass(frozen=True)
class Stage:
    """Where scenes are played: a cluster whose workers are running, and their broker."""

    cluster: Cluster
    nursery: Nursery
    broker: str

    def play(self, name: str, folder: Path) -> Report:
        """Let something befall the cluster, under a load whose journals go to an empty folder."""
        fault = self.cluster.faults[name]
        load = load_on(self.nursery, self.cluster.url, self.broker, folder)
        away, troubles = 0.0, Verdict()
        try:
            with load:
                load.go_on(SOME)
                with watched(self.cluster) as watch:
                    fault.befall(self.cluster)
                    load.go_on(SOME)
                away = watch.longest
        except AssertionError as error:
            troubles = Verdict(hung=(str(error),))
        report = report_of(load, away)
        report.verdict += troubles
        return report if not fault.is_rough else replace(report, verdict=replace(report.verdict, repeated=()))


def report_of(load: Load, away: float) -> Report:
    """What a load that has ended has done."""
    return Report(
        stores=len(load.noted(RETURNED, "writer")),
        waits=len(load.noted(RETURNED, "waiter")) + len(load.noted(RETURNED, "caller")),
        bodies=len(load.noted(RAN)),
        retries=len(load.noted(RETRIED)),
        held=load.longest("writer"),
        away=away,
        verdict=load.verdict(),
    )
