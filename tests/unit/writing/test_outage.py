"""What is told of an outage, and what is not."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from celery_sql_results.settings import Policy
from celery_sql_results.writing import Outage, outage
from support import fork

POLICY = Policy(float("inf"), 240.0, 0.01, 10.0)
AWAY = OSError("away")


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Time that passes when a test says so."""
    now = [1000.0]
    monkeypatch.setattr(outage.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(outage.time, "time", lambda: now[0])

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    return pass_by


def an_outage(policy: Policy = POLICY, spool: Path | None = None, url: str | None = None) -> Outage:
    """Of a database that no other test has."""
    return Outage(url or uuid.uuid4().hex, "sql+x://", policy, spool)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The beginning of each line."""
    return [re.split(r" since|,", message)[0] for message in caplog.messages]


BEGUN, OVER = "trouble with the result database sql+x://", "the result database sql+x:// is well again"


def test_what_passes_within_a_second_is_not_told(
    clock: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Two writers that met, for example."""
    found = an_outage()
    found.failed(AWAY)
    clock(0.9)
    found.failed(AWAY)
    found.answered()
    clock(5)
    found.failed(AWAY)

    assert caplog.messages == []


def test_an_operation_that_is_held_up_alone(clock: Callable[[float], None], caplog: pytest.LogCaptureFixture) -> None:
    """Others succeed meanwhile, again and again: that is one outage all the same."""
    found = an_outage()
    with found.held_up():
        for _ in range(5):
            found.failed(AWAY, writes=True)
            clock(2)
            found.answered(writes=True)
    found.answered(writes=True)

    assert told(caplog) == [BEGUN, OVER]


def test_a_server_that_only_reads(clock: Callable[[float], None], caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be written is not over when something was read."""
    found = an_outage()
    found.failed(AWAY, writes=True, at_once=True)
    clock(3)
    found.answered()
    before = told(caplog)
    found.answered(writes=True)

    assert (before, told(caplog)) == ([BEGUN], [BEGUN, OVER])


def test_processes_tell_it_once(clock: Callable[[float], None], caplog: pytest.LogCaptureFixture) -> None:
    """A child begins it and dies in the middle; its parent tells that it is over, and how much was tried again."""
    found, log = an_outage(), []

    def in_child() -> None:
        found.retried()
        found.failed(AWAY, at_once=True)
        found.failed(AWAY, at_once=True)
        held = found.held_up()
        held.__enter__()

    child = fork()
    if not child:
        in_child()
        os._exit(len(told(caplog)))
    log.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    clock(7)
    found.failed(AWAY, at_once=True)
    found.answered()

    assert (log, caplog.messages) == (
        [1],
        ["the result database sql+x:// is well again, after 7.0 s: 1 operations were tried again"],
    )


def test_backends_of_one_database_tell_it_once(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever notices."""
    one, two, other = an_outage(url="a"), an_outage(url="a"), an_outage(url="b")
    for each in (one, two, other, one):
        each.failed(AWAY, at_once=True)
    two.answered()
    one.answered()

    assert told(caplog) == [BEGUN, BEGUN, OVER]


@pytest.mark.parametrize(
    ("policy", "spool", "expected"),
    [
        (POLICY, None, "each result is tried again for 240 s, the first until 00:20:40 UTC, then given up"),
        (
            POLICY,
            Path("/spool"),
            "each result is tried again for 240 s, the first until 00:20:40 UTC, then kept in",
        ),
        (Policy(5, float("inf"), 0, 0), None, "each result is tried again 5 times, then given up ("),
        (
            Policy(0, float("inf"), 0, 0),
            None,
            "each result is given up (database_spool_dir would keep it), and not tried",
        ),
        (Policy(float("inf"), float("inf"), 0, 0), None, "each result is tried again until it is stored."),
    ],
)
def test_what_becomes_of_results(
    policy: Policy, spool: Path | None, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As the settings say."""
    an_outage(policy, spool).failed(AWAY, at_once=True)

    assert caplog.messages[0].startswith(f"{BEGUN} since 00:16:40 UTC (OSError: away): {expected}")


def test_only_the_first_of_a_kind(caplog: pytest.LogCaptureFixture) -> None:
    """Until something was stored again."""
    found = an_outage()
    first = [found.is_first(kind) for kind in (outage.KEPT, outage.KEPT, outage.LOST)]
    found.answered(writes=True)

    assert (first, found.is_first(outage.KEPT), caplog.messages) == ([True, False, True], True, [])
