"""`python -m benchmarks`: measures our backend beside others, in one run on this machine."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import machine, report
from benchmarks.arena import DURABLE, FULL, QUICK, Arena
from benchmarks.cases import BENCHMARKS
from benchmarks.contenders import BEFORE
from benchmarks.plot import plot
from benchmarks.race import race
from servers import KINDS, Missing, Redis, Server


def names(known: Collection[str]) -> Callable[[str], list[str]]:
    """A type of argument: some of these names, with commas between."""

    def read(text: str) -> list[str]:
        chosen = list(dict.fromkeys(text.split(",")))
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return chosen

    return read


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    every = ", ".join(BENCHMARKS)
    parser.add_argument("--only", type=names(BENCHMARKS), default=list(BENCHMARKS), help=f"some of: {every}")
    databases = ", ".join(DURABLE)
    parser.add_argument("--databases", type=names(DURABLE), default=list(DURABLE), help=f"some of: {databases}")
    parser.add_argument(
        "--before", type=Path, metavar="FOLDER", help="compare with nothing but another checkout of this project"
    )
    parser.add_argument("--quick", action="store_true", help="few short rounds: to see that it works, not to quote")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to this file")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw the ratios of this run as bars, in SVG")
    return parser.parse_args()


class Run:
    """One run: what is asked for, what has been found so far."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self._asked = asked
        self._console = Console()
        self._scale = QUICK if asked.quick else FULL
        if asked.before:
            os.environ[BEFORE] = str(asked.before.resolve(strict=True))
        self.document: dict[str, Any] = {
            "command": shlex.join(["scripts/bench", *sys.argv[1:]]),
            "quick": asked.quick,
            "scale": asdict(self._scale),
            "machine": machine.machine(),
            "versions": machine.versions(),
            "servers": {"redis": machine.redis_version()},
            "settings": {},
            "results": [],
        }

    def all(self) -> None:
        """Measure on each database in turn."""
        with ExitStack() as ending:
            redis = self._started("redis", ending)
            assert redis is None or isinstance(redis, Redis)
            for database in self._asked.databases:
                self._on(database, redis)
        report.conditions(self._console, self.document)

    def _started(self, kind: str, ending: ExitStack) -> Server | None:
        try:
            return ending.enter_context(KINDS[kind](DURABLE.get(kind)))
        except Missing as missing:
            self._console.print(f"[red]Not measured: {kind}. {missing}")
            return None

    def _on(self, database: str, redis: Redis | None) -> None:
        with ExitStack() as ending:
            server = self._started(database, ending)
            if server is None:
                return
            arena = Arena(server, redis, self._scale)
            self.document["servers"][database] = arena.version
            self.document["settings"][database] = arena.settings
            for name in self._asked.only:
                self._measure(name, arena)

    def _measure(self, name: str, arena: Arena) -> None:
        benchmark, database = BENCHMARKS[name], arena.server.kind
        contenders = ("ours", "before") if self._asked.before else benchmark.contenders
        with self._console.status(f"{database}: {name}"):
            rows = report.results(benchmark, database, race(benchmark, arena, contenders))
        self.document["results"] += rows
        self._console.print(report.table(rows))
        if self._asked.json:  # each time, so that a run that is broken off leaves what it has
            report.write(self._asked.json, self.document)
        if self._asked.plot:
            self._asked.plot.write_text(plot(self.document), "utf-8")


def main() -> int:
    """Run what was asked for; the status is 1 if nothing could be measured."""
    run = Run(arguments())
    run.all()
    return 0 if any(row["seconds"] for row in run.document["results"]) else 1


if __name__ == "__main__":
    sys.exit(main())
