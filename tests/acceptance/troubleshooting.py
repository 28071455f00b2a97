"""What a worker says when something is wrong with it, as the page for users quotes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from acceptance.worker import PATIENCE, TICK, Settings, Worker
from servers import Database

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "troubleshooting.md"
#: What the page quotes of a line: its level and what it says.
LINE = re.compile(r"^\[(\w+)\] \[[\w.]+\] ")
#: A worker that root runs begins with a warning of some lines, of Celery's.
ABOUT_ROOT = re.compile(r"^\S+: SecurityWarning: .*?_warn_or_raise_security_error\(.*?\n", re.DOTALL)
#: What follows the log of a start that has failed, or comes before that of one that has not.
BANNER = re.compile(r"^ ?\n? -------------- .*?^\[tasks\]\n.*?\n\n", re.DOTALL | re.MULTILINE)


def quoted(heading: str) -> list[str]:
    """The pieces of the log that the page quotes under a heading, in turn."""
    sections = dict(
        re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    )
    return re.findall(r"^```text\n(.*?)\n```", sections[heading], re.DOTALL | re.MULTILINE)


def headings() -> Iterator[str]:
    """The headings under which the page quotes something."""
    for heading in re.findall(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE):
        yield from [heading] * len(quoted(heading))


def said(worker: Worker, folder: Path, database: Database | None = None) -> str:
    """All that a worker has logged above INFO, with the names of the page for what differs from run to run."""
    log = BANNER.sub("", ABOUT_ROOT.sub("", worker.log))
    kept, lines = False, []
    for line in log.splitlines():
        if LINE.match(line):
            kept = not line.startswith("[INFO]")
        if kept and line.strip():
            lines.append(LINE.sub(r"[\1] ", line))
    text = "\n".join(lines).replace(str(folder), "/srv/shop")
    if database is not None:
        text = re.sub(r'127\.0\.0\.1(?::\d+|", port \d+)', lambda found: _place(found[0], database), text)
        text = text.replace(database.name.replace("_", r"\_"), "shop").replace(database.name, "shop")
    return text


def _place(found: str, database: Database) -> str:
    port = {"postgresql": 5432, "mariadb": 3306}[database.kind]
    return f'127.0.0.1", port {port}' if "port" in found else f"127.0.0.1:{port}"


def failed_start(folder: Path, settings: Settings, *arguments: str) -> tuple[int, Worker]:
    """The exit status of a worker that has ended by itself, and the worker."""
    worker = Worker(folder, settings, "--concurrency=1", *arguments)
    worker.start()
    return worker.await_end(), worker


__all__ = ["PATIENCE", "TICK", "failed_start", "headings", "quoted", "said"]
