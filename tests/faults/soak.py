"""`python -m faults.soak MINUTES`: the load of these tests for so long, under all faults at random, on each database.

What becomes of each result is then looked up, and printed as a table. The status is 1 if anything was lost or wrong.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from concurrency.nursery import Nursery
from faults.actors import RETRIED, RETURNED
from faults.disks import ON_DISK
from faults.load import Load, Verdict
from faults.scene import Scene, scene_on
from servers import Missing

#: Seconds after which what was stored is looked up, and other processes go on.
ROUND = 20.0
#: Seconds between two faults, at least and at most.
BETWEEN = (0.0, 1.0)
IMPATIENT = {"sqlite": {"database_engine_options": {"connect_args": {"timeout": 0.5}}}}
VERSIONS = {"postgresql": "SHOW server_version", "mariadb": "SELECT VERSION()", "sqlite": "SELECT sqlite_version()"}


@dataclass
class Tally:
    """What has happened."""

    stores: int = 0
    waits: int = 0
    retries: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    verdict: Verdict = field(default_factory=Verdict)

    def round(self, nursery: Nursery, scene: Scene, folder: Path, end: float) -> None:
        """Let processes store and wait under faults until the end, and look up what has become of it."""
        load = Load(nursery, scene.url, folder, direct=scene.database.url, settings=IMPATIENT.get(scene.database.kind))
        try:
            with load:
                self._befall(scene, load, end)
        except AssertionError as error:
            self.verdict += Verdict(hung=(str(error),))
        self.stores += len(load.noted(RETURNED, "writer"))
        self.waits += len(load.noted(RETURNED, "waiter"))
        self.retries += len(load.noted(RETRIED))
        self.verdict += load.verdict()

    def _befall(self, scene: Scene, load: Load, end: float) -> None:
        while time.monotonic() < end:
            name = scene.chance.choice(list(scene.faults))
            scene.faults[name](scene)
            self.faults[name] += 1
            load.go_on()
            time.sleep(scene.chance.uniform(*BETWEEN))

    def table(self, title: str) -> Table:
        """All of it, in figures."""
        table = Table("", Column(justify="right"), title=title, show_header=False, min_width=len(title))
        wrong = {name: len(found) for name, found in asdict(self.verdict).items()}
        figures = {"stores": self.stores, "waits": self.waits, "retries": self.retries}
        for section in (figures, {"faults": self.faults.total(), **dict(sorted(self.faults.items()))}, wrong):
            for name, number in section.items():
                table.add_row(name, f"{number:,}")
            table.add_section()
        return table


def soak(kind: str, minutes: float, seed: int) -> tuple[Tally, str]:
    """Soak one kind of database; what has happened, and the version that it has."""
    tally, end = Tally(), time.monotonic() + minutes * 60
    with scene_on(kind, random.Random(seed)) as scene, Nursery() as nursery, tempfile.TemporaryDirectory() as folder:
        ((version,),) = scene.database.server.execute(VERSIONS[kind])
        while time.monotonic() < end:
            journals = Path(folder, f"round-{len(list(Path(folder).iterdir()))}")
            journals.mkdir()
            tally.round(nursery, scene, journals, min(end, time.monotonic() + ROUND))
    return tally, str(version)


def some_of(text: str) -> list[str]:
    """Names of databases, with commas between."""
    names = text.split(",")
    if unknown := set(names) - set(ON_DISK):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(ON_DISK)}")
    return names


def main() -> int:
    """Soak what was asked for; the status is 1 if anything went wrong, or a server is missing."""
    parser = argparse.ArgumentParser("scripts/soak", description=__doc__)
    parser.add_argument("minutes", type=float, help="for each database; fractions are possible")
    parser.add_argument("--databases", type=some_of, default=list(ON_DISK), help=f"some of: {','.join(ON_DISK)}")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of all that is at random")
    asked, console, status = parser.parse_args(), Console(), 0
    for kind in asked.databases:
        try:
            tally, version = soak(kind, asked.minutes, asked.seed)
        except Missing as missing:
            console.print(f"[red]Not soaked: {kind}. {missing}")
            status = 1
            continue
        console.print(tally.table(f"{kind} {version}, {asked.minutes:g} min, seed {asked.seed}"))
        if tally.verdict != Verdict():
            console.print(tally.verdict)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
