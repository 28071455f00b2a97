"""What the end of a run says in plain words: what was not tested, and what failed once and passed when repeated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from servers.pool import MISSING


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Say it after all else, one line for each; scripts/everywhere repeats these lines."""
    yield
    for line in [*_repeated(terminalreporter), *_missing(terminalreporter)]:
        terminalreporter.write_line(line, red=True, bold=True)


def _repeated(reporter: pytest.TerminalReporter) -> list[str]:
    """What failed again is shown as failed; what is left has a cause that nobody knows yet."""
    failed = {report.nodeid for kind in ("failed", "error") for report in reporter.stats.get(kind, [])}
    times = Counter(report.nodeid for report in reporter.stats.get("rerun", []) if report.nodeid not in failed)
    return [
        f"FAILED {'ONCE' if count == 1 else f'{count} TIMES'}, PASSED WHEN REPEATED: {test}"
        for test, count in sorted(times.items())
    ]


def _missing(reporter: pytest.TerminalReporter) -> list[str]:
    """Which servers were missing, and so which databases were not tested."""
    skipped = (report.longrepr for report in reporter.stats.get("skipped", []))
    reasons = {str(reason[2]).partition(MISSING)[2] for reason in skipped if isinstance(reason, tuple)}
    return [f"NOT TESTED, server missing: {reason}" for reason in sorted(reasons - {""})]
