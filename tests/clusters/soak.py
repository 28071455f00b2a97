"""`python -m clusters.soak MINUTES`: on each cluster, for so long, whatever may befall it, at random and under load.

What became of each result is printed as a table. The status is 1 if anything was lost, wrong, or hung.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from clusters import CLUSTERS
from clusters.load import workers_on
from clusters.scene import Report, Stage
from concurrency.nursery import Nursery
from faults.load import Verdict
from servers import Missing, Redis

#: What was played: the name of what has happened, and what came of it.
Played = list[tuple[str, Report]]


def soak(kind: str, minutes: float, seed: int) -> tuple[Played, str]:
    """Play scenes on a cluster until the time is up; what came of each, and the releases of the cluster's programs."""
    played: Played = []
    end, chance = time.monotonic() + minutes * 60, random.Random(seed)
    with Redis() as redis, Nursery() as nursery, tempfile.TemporaryDirectory() as folder:
        while not played or time.monotonic() < end:
            with CLUSTERS[kind].make() as cluster, workers_on(cluster.url, redis.url(), Path(folder)):
                version = cluster.version()  # before anything befalls it
                play(Stage(cluster, nursery, redis.url()), chance, Path(folder), end, played)
    return played, version


def play(stage: Stage, chance: random.Random, folder: Path, end: float, played: Played) -> None:
    """Play one scene after the other until the time is up, or something went wrong: that needs a new cluster."""
    stage.cluster.chance = chance
    while True:
        name = chance.choice(list(stage.cluster.faults))
        journals = folder / f"scene-{len(played)}"
        journals.mkdir()
        played.append((name, stage.play(name, journals)))
        if time.monotonic() > end or played[-1][1].verdict != Verdict():
            return


def table(played: Played, title: str) -> Table:
    """All of it, in figures."""
    figures = (Column(name, justify="right") for name in ("times", "no primary, s", "held up, s"))
    shown = Table("", *figures, title=title, min_width=len(title))
    for name in sorted({name for name, _ in played}):
        those = [report for its, report in played if its == name]
        away, held = (max(getattr(report, what) for report in those) for what in ("away", "held"))
        shown.add_row(name, f"{len(those):,}", f"{away:.1f}", f"{held:.1f}")
    shown.add_section()
    whole = sum((report for _, report in played), Report())
    for name in ("stores", "waits", "bodies", "retries"):
        shown.add_row(name, f"{getattr(whole, name):,}")
    shown.add_section()
    for name, found in asdict(whole.verdict).items():
        shown.add_row(name, f"{len(found):,}")
    return shown


def main() -> int:
    """Soak what was asked for; the status is 1 if anything went wrong, or a program is missing."""
    parser = argparse.ArgumentParser("scripts/soak --clusters", description=__doc__)
    parser.add_argument("minutes", type=float, help="for each cluster; the scene that is being played is played out")
    parser.add_argument("--only", action="append", choices=list(CLUSTERS), help="a cluster; may be given again")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of all that is at random")
    asked, console, status = parser.parse_args(), Console(), 0
    for kind in asked.only or CLUSTERS:
        try:
            played, version = soak(kind, asked.minutes, asked.seed)
        except Missing as missing:
            console.print(f"[red]Not soaked: {kind}. {missing}")
            status = 1
            continue
        console.print(table(played, f"{kind}: {version}, {asked.minutes:g} min, seed {asked.seed}"))
        for name, report in played:
            if report.verdict != Verdict():
                console.print(name, report.verdict)
                status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
