"""Each name of another library that is not public may go: the public way is taken, with one warning."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from celery_sql_results._compat import COMPILED, COMPILER, POOL, PRIVATE, PSYCOPG, QUICK, memoized_property
from servers import Database

SCRIPT = Path(__file__).with_name("without.py")
#: What is read, on any database.
READ = ["Ü", [1, None], ["Ü"]]


@pytest.mark.parametrize("name", PRIVATE)
def test_a_name_that_is_not_there(name: str, sqlite: Database, postgresql: Database) -> None:
    """What is stored is read, nothing is raised, nothing is left open, and one line tells what is lost."""
    command = [sys.executable, "-W", "error", str(SCRIPT), name, sqlite.url, postgresql.url]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found, by_use, told = json.loads(done.stdout)

    assert found == [READ, READ]
    assert told == [f"{name} is not there in this release: {PRIVATE[name]}"]
    if name in {*COMPILED, *COMPILER, *POOL, *QUICK, *PSYCOPG}:
        assert by_use == told


class Thing:
    """Something with a property that is expensive."""

    computed = 0

    @memoized_property
    def value(self) -> list[int]:
        """How often it was computed."""
        self.computed += 1
        return [self.computed]


def test_a_memoized_property_is_computed_once() -> None:
    thing = Thing()

    assert thing.value is thing.value
    assert (thing.value, Thing.value.__doc__) == ([1], "How often it was computed.")


def test_a_memoized_property_is_the_same_for_all_who_ask_at_once() -> None:
    """Here one asks while another computes."""

    class Slow:
        @memoized_property
        def value(self) -> object:
            return vars(self).setdefault("value", self)  # the other is done first

    slow = Slow()

    assert slow.value is slow
