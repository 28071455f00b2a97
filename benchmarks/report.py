"""What was measured, as tables for people and as JSON for programs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.case import Benchmark
from benchmarks.race import Standing

#: The units of time, from the largest, in seconds.
UNITS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}


def results(benchmark: Benchmark, database: str, standings: Sequence[Standing]) -> list[dict[str, Any]]:
    """One result for each contender; times in seconds. `times_ours` compares medians: above 1, ours takes less time."""
    medians = {one.contender: statistics.median(one.seconds) for one in standings if one.seconds}
    ours = medians.get("ours")
    return [
        {
            "database": database,
            "benchmark": benchmark.name,
            "title": benchmark.title,
            "contender": one.contender,
            "median": (median := medians.get(one.contender)),
            "quartiles": _quartiles(one.seconds),
            "times_ours": median / ours if median and ours and min(median, ours) > 0 else None,
            "counts": dict(one.counts),
            "failure": one.failure,
            "seconds": one.seconds,
        }
        for one in standings
    ]


def _quartiles(seconds: Sequence[float]) -> list[float]:
    """The first and the third; one figure stands for both."""
    if len(seconds) < 2:
        return [*seconds, *seconds]
    first, _, third = statistics.quantiles(seconds, n=4, method="inclusive")
    return [first, third]


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The results of one benchmark on one database."""
    first = rows[0]
    shown = Table(title=f"{first['database']} · {first['benchmark']}\n{first['title']}", title_justify="left")
    shown.add_column("contender", no_wrap=True)
    for column in ("median", "quartiles", "a second", "× ours", "figures"):
        shown.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(row["contender"], *_figures(row), str(len(row["seconds"])))
    remarks = (f"{row['contender']}: {_remarks(row)}" for row in rows if row["failure"] or row["counts"])
    shown.caption, shown.caption_justify = "\n".join(remarks) or None, "left"
    return shown


def _figures(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    if row["median"] is None:
        return ("–",) * 4
    ratio = "–" if row["times_ours"] is None else f"{row['times_ours']:,.{2 if row['times_ours'] > 0.1 else 4}f}"
    per_second = f"{1 / row['median']:,.1f}" if row["median"] > 0 else "–"
    return duration(row["median"]), " – ".join(map(duration, row["quartiles"])), per_second, ratio


def _remarks(row: Mapping[str, Any]) -> str:
    """What was counted, and of a failure, which may quote a whole log, the last line."""
    failure = row["failure"].strip().rpartition("\n")[2]
    return ", ".join(filter(None, [failure, *(f"{name}: {count}" for name, count in row["counts"].items())]))


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    unit = next((unit for unit, size in UNITS.items() if abs(seconds) >= size), "µs")
    return f"{seconds / UNITS[unit]:.3g} {unit}"


def conditions(console: Console, document: Mapping[str, Any]) -> None:
    """Show the machine and the versions."""
    for part in ("machine", "versions", "servers"):
        console.print(f"[bold]{part}[/bold]", ", ".join(f"{name} {value}" for name, value in document[part].items()))


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write the JSON document."""
    path.write_text(json.dumps(document, indent=1) + "\n")
