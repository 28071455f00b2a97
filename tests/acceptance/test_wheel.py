"""The wheel, installed in an empty environment, works in a ten-line app."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Seconds that one command may take: it may have to fetch the dependencies.
PATIENCE = 240
#: What pip says when the index cannot be reached.
OFFLINE = ("No matching distribution found", "Connection to", "Temporary failure in name resolution")

APP = """\
from celery import Celery
app = Celery("ten", broker="memory://", backend="sql+sqlite:///results.db")
@app.task
def add(x, y):
    return x + y
from celery.contrib.testing.worker import start_worker
with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=60):
    print(add.delay(2, 3).get(timeout=60))
import celery_sql_results
print(celery_sql_results.__file__)
"""

BACKENDS = """\
from celery import Celery
for url in ("sql+sqlite://", "db+sqlite://"):
    kind = type(Celery(backend=url, set_as_current=False).backend)
    print(kind.__module__, kind.__name__)
"""


def run(command: Sequence[str | Path], folder: Path) -> str:
    """Run a command in a folder, without what this process has on its path, and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=folder, env=environment, timeout=PATIENCE
    )
    if ended.returncode and any(sign in ended.stderr for sign in OFFLINE):
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(f"the package index cannot be reached: {ended.stderr}")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source."""
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={folder}", ROOT], folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def python(wheel: Path) -> Path:
    """The interpreter of an environment that holds the wheel and its dependencies."""
    environment = wheel.parent / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    run([python, "-m", "pip", "install", "--quiet", wheel], wheel.parent)
    return python


def test_the_wheel_is_complete(wheel: Path) -> None:
    package = ROOT / "src" / "celery_sql_results"
    source = {str(path.relative_to(package.parent)) for path in package.rglob("*.py")}
    names = set(zipfile.ZipFile(wheel).namelist())
    assert source | {"celery_sql_results/py.typed"} <= names
    assert any(name.startswith("celery_sql_results/schema/migrations/versions/") for name in names)
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"celery_sql_results"}


def test_an_app_works_in_an_empty_environment(python: Path, tmp_path: Path) -> None:
    (tmp_path / "ten.py").write_text(APP)
    result, where = run([python, "ten.py"], tmp_path).splitlines()[-2:]
    assert result == "5"
    assert Path(where).is_relative_to(python.parents[1])


def test_celerys_own_backend_keeps_its_name(python: Path, tmp_path: Path) -> None:
    (tmp_path / "backends.py").write_text(BACKENDS)
    ours, theirs = run([python, "backends.py"], tmp_path).splitlines()
    assert (ours, theirs) == (
        "celery_sql_results.backend DatabaseBackend",
        "celery.backends.database DatabaseBackend",
    )
