"""The demo, as scripts/demo runs it: what it shows, that it leaves nothing behind, and how it fails."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from servers import PostgreSQL
from servers.guard import inhabitants
from servers.pool import or_skip

ROOT = Path(__file__).resolve().parents[2]
#: Seconds in which everything must be gone; a demo that was killed leaves a worker that may take five.
PATIENCE = 20.0

pytestmark = pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="looks for processes in /proc")


@pytest.fixture
def folder() -> Iterator[Path]:
    """The only place for the demo's temporary files; `tmp_path` is too long for the name of a PostgreSQL socket."""
    with TemporaryDirectory(prefix="demo-") as folder:
        yield Path(folder).resolve()


@pytest.fixture(params=["sqlite", "postgresql"])
def arguments(request: pytest.FixtureRequest) -> list[str]:
    """The demo's arguments for each database."""
    if request.param == "sqlite":
        return []
    with or_skip("postgresql"):
        PostgreSQL().check()
    return ["--postgresql"]


def start(folder: Path, *arguments: str, first_path: Path | None = None, **environment: str) -> subprocess.Popen[str]:
    """Start the demo as scripts/demo does, but for the set-up."""
    paths = [first_path, ROOT / "examples", ROOT / "tests", os.environ.get("PYTHONPATH")]
    path = os.pathsep.join(str(path) for path in paths if path)
    return subprocess.Popen(
        [sys.executable, "-m", "demo", *arguments],
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(folder), "COLUMNS": "100", **environment},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=heed_interrupts,  # noqa: PLW1509 - no other thread forks meanwhile
    )


def heed_interrupts() -> None:
    """As in a terminal: what runs in the background may have been told to ignore them, and hands that down."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def processes(folder: Path) -> Iterator[str]:
    """The command lines of all processes that work in `folder` or name it."""
    here = set(inhabitants(folder))
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile
            command = (process / "cmdline").read_text().replace("\0", " ")
            if int(process.name) in here or str(folder) in command:
                yield command


def leftovers(folder: Path) -> list[str]:
    """The processes and files that are still there when all have had time to go."""
    deadline = time.monotonic() + PATIENCE
    while (found := [*processes(folder), *os.listdir(folder)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def read_until(demo: subprocess.Popen[str], text: str) -> str:
    """What the demo says up to and with a text."""
    assert demo.stdout is not None
    said = ""
    while text not in said:
        character = demo.stdout.read(1)
        assert character, said
        said += character
    return said


def test_shows_tasks_group_chord_and_rows(folder: Path, arguments: list[str]) -> None:
    demo = start(folder, *arguments)
    output, _ = demo.communicate()
    rows = re.findall(r"^\w{8} demo\.tasks\.(\w+) +(\w+) +(\d) ", output, re.MULTILINE)
    assert demo.returncode == 0, output
    assert rows[:3] == [("add", "SUCCESS", "0"), ("divide", "FAILURE", "0"), ("connect", "SUCCESS", "2")]
    assert rows[-1] == ("total", "SUCCESS", "0")
    assert "104 more" in output
    assert_looked_at(output)
    assert leftovers(folder) == []


def assert_looked_at(output: str) -> None:
    """At the end, the commands show what is stored."""
    _, listed, failures, shown = re.split(r"^\$ celery --app demo\.tasks results .*\n", output, flags=re.MULTILINE)
    newest = [line.split()[2:4] for line in listed.strip().splitlines()]
    [[_, *first]] = re.findall(r"^(1) +(\w+) +(\S+) ", failures, re.MULTILINE)
    words = dict(re.findall(r"^(id|state|task|worker) +(\S+)$", shown, re.MULTILINE))

    assert len(newest) == 7
    assert newest[1] == ["SUCCESS", "demo.tasks.total"]
    assert first == ["ZeroDivisionError", "demo.tasks.divide"]
    assert (words["state"], words["task"], words["worker"]) == ("FAILURE", "demo.tasks.divide", "w1@demo")
    assert "args:\n  [1, 0]\n" in shown
    assert "  ZeroDivisionError: division by zero\n" in shown


def test_needs_neither_colours_nor_utf8(folder: Path) -> None:
    demo = start(folder, PYTHONIOENCODING="ascii", TERM="dumb")
    output, _ = demo.communicate()
    assert (demo.returncode, output.isascii()) == (0, True), output


def test_leaves_the_app_alone_that_its_environment_configures(folder: Path) -> None:
    demo = start(folder, CELERY_BROKER_URL="amqp://somebody.invalid", CELERY_RESULT_BACKEND="redis://somebody.invalid")
    output, _ = demo.communicate()
    assert demo.returncode == 0, output


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)]
)
def test_leaves_nothing_when_it_is_interrupted(
    folder: Path, arguments: list[str], number: signal.Signals, status: int
) -> None:
    demo = start(folder, *arguments)
    said = read_until(demo, "start a worker")
    demo.send_signal(number)
    rest, _ = demo.communicate()
    assert demo.returncode == status, said + rest
    assert "Traceback" not in rest
    assert leftovers(folder) == []


def test_says_why_a_worker_did_not_start(folder: Path, tmp_path: Path) -> None:
    saboteur = tmp_path / "sitecustomize.py"
    saboteur.write_text("import os, sys\nif 'worker' in sys.orig_argv: os.write(2, b'not today') and os._exit(1)\n")
    demo = start(folder, first_path=tmp_path)
    output, _ = demo.communicate()
    assert demo.returncode == 1
    assert "The worker's log ends with:\nnot today\n" in output
    assert output.endswith("The worker ended with status 1 while it was starting.\n")
    assert leftovers(folder) == []


def test_says_what_is_missing_for_postgresql(folder: Path, tmp_path: Path) -> None:
    saboteur = tmp_path / "sitecustomize.py"
    saboteur.write_text("import sys\nsys.modules['psycopg'] = None\n")
    demo = start(folder, "--postgresql", first_path=tmp_path)
    output, _ = demo.communicate()
    assert demo.returncode == 1
    assert output.startswith("PostgreSQL's programs or its driver were not found. pip install")
    assert leftovers(folder) == []
