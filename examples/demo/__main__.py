"""`python -m demo [--postgresql]`, with examples/ and tests/ (for the servers) on the path; scripts/demo does it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from demo import screen
from demo.worker import kill, last_words, worker
from servers import PostgreSQL
from servers.process import Home

#: What the tests' PostgreSQL leaves out to be quick, so that what is timed here is a durable one.
DURABLE = {"fsync": "on", "full_page_writes": "on"}


def main() -> int:
    """Show the demo and return its exit status; leave no process and no file behind, however it ends."""
    options = _options()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    home = Home("celery-demo", account="root")  # not a server, so root may run it as root
    try:
        with _database(home.folder, options.postgresql) as url:
            _show(home, url)
    except KeyboardInterrupt:
        screen.say("Interrupted.")
        return 128 + signal.SIGINT
    except Exception as error:  # noqa: BLE001 - the boundary: whoever tries this out gets a sentence, not a traceback
        screen.say_failed(error, last_words(home))
        return 1
    finally:
        home.remove()
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description="Shows a real worker whose results go to SQL.")
    parser.add_argument("--postgresql", action="store_true", help="on a PostgreSQL of its own instead of SQLite")
    return parser.parse_args()


@contextmanager
def _database(folder: Path, postgresql: bool) -> Iterator[str]:
    """The URL of an empty database."""
    if not postgresql:
        yield f"sqlite:///{folder / 'results.db'}"
        return
    with ExitStack() as until_done:
        with screen.step("start PostgreSQL") as step:
            server = until_done.enter_context(PostgreSQL(DURABLE))
            server.create_database("demo")
            step.outcome = f"version {server.execute('SHOW server_version')[0][0]}"
        yield server.url("demo")


def _show(home: Home, url: str) -> None:
    _configure(home.folder, f"sql+{url}")
    from demo import look, story  # its app is configured now

    with worker(home) as process:
        failed = story.run_tasks()
        with screen.step("kill -9 the worker"):
            kill(process)
    rows = story.read_rows(url)
    screen.say(f"\n{story.ROWS}\n", style="cyan")
    screen.say_rows(rows)
    look.look(failed)
    screen.say('\nNext, in your own app, change one word: result_backend = "db+..." -> "sql+..."', style="bold")


def _configure(folder: Path, results: str) -> None:
    """Tell the app, here and in the worker; what Celery would find in the environment is for somebody's real app."""
    for name in [name for name in os.environ if name.startswith("CELERY_")]:
        del os.environ[name]
    os.environ.update(DEMO_FOLDER=str(folder), DEMO_RESULTS=results, TMPDIR=str(folder))
    screen.say(f'result_backend = "{results}"')


if __name__ == "__main__":
    sys.exit(main())
