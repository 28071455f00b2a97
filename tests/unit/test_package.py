"""What the package shows to the outside."""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
import re
import sys
from collections.abc import Callable
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.app.backends import by_url
from celery.backends.database import DatabaseBackend as CelerysBackend
from celery.exceptions import ImproperlyConfigured

import celery_sql_results as package
from celery_sql_results.payload.exceptions import restored
from support import app_on


def test_public_names() -> None:
    """No more and no less than what is promised, and each is there and documented."""
    expected = [
        "AlreadyCompleted",
        "AwaitTimeout",
        "CannotComplete",
        "DatabaseBackend",
        "DatabaseUnusable",
        "NotCommitted",
        "PayloadTooLarge",
        "ResultRefused",
        "SchemaError",
        "SessionManager",
        "SettingError",
        "Task",
        "TaskExtended",
        "TaskIdInvalid",
        "TaskIdTooLong",
        "TaskSet",
        "complete",
        "session_cleanup",
    ]

    assert package.__all__ == expected
    assert [name for name in expected if not inspect.getdoc(getattr(package, name))] == []


#: What Celery itself needs, and what only those import who have the driver, the serializer or the framework.
OF_CELERY = {"billiard", "click", "click_didyoumean", "kombu", "vine"}
OF_USERS = {"django", "django_celery_results", "psycopg", "rich", "yaml"}


def imports(module: Path) -> set[str]:
    """The packages that a module imports."""
    nodes = list(ast.walk(ast.parse(module.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.partition(".")[0] for name in names}


def test_what_is_imported_is_what_is_declared() -> None:
    """So that nobody installs what nothing needs, and nobody lacks what something does."""
    imported = set().union(*(imports(module) for module in Path(package.__file__).parent.rglob("*.py")))
    ours = imported - sys.stdlib_module_names - OF_CELERY - OF_USERS - {package.__name__}
    declared = [line for line in metadata.requires("celery-sql-results") or () if "extra ==" not in line]
    names = {re.split(r"[<>=!~; \[]", line)[0].lower().replace("-", "_") for line in declared}

    assert ours == names


def test_it_says_where_the_project_is_at_home() -> None:
    """For whoever finds the package first."""
    links = metadata.metadata("celery-sql-results").get_all("Project-URL") or []

    assert {"Source", "Documentation", "Changelog", "Issues"} == {link.partition(",")[0] for link in links}


def test_entry_point_makes_the_word_sql() -> None:
    """`sql+…` works in any app, with nothing imported before."""
    found, url = by_url("sql+postgresql+psycopg://user@host/db")

    assert (found, url) == (package.DatabaseBackend, "postgresql+psycopg://user@host/db")


@pytest.mark.parametrize("url", ["db+sqlite://", "database"])
def test_celerys_own_words_are_untouched(url: str) -> None:
    """Installing the package changes nothing for whoever says `db+`."""
    assert by_url(url)[0] is CelerysBackend


@pytest.mark.parametrize("path", ["celery_sql_results.DatabaseBackend", "celery_sql_results:DatabaseBackend"])
def test_class_path_works_too(path: str) -> None:
    """With the URL in `database_url`, as Celery's manual has it for `database`."""
    app = Celery("tests", set_as_current=False)
    app.conf.update(result_backend=path, database_url="sqlite://")

    assert (type(app.backend), app.backend.as_uri()) == (package.DatabaseBackend, "sql+sqlite://")


def test_no_url_is_one_clear_error() -> None:
    """The class path alone does not say where."""
    app = Celery("tests", set_as_current=False)
    app.conf.update(result_backend="celery_sql_results.DatabaseBackend")

    with pytest.raises(ImproperlyConfigured, match=r"^database_url is None, but it must be a URL"):
        _ = app.backend


def test_one_backend_serves_all_threads_of_an_app() -> None:
    """Celery makes one for each thread otherwise."""
    assert app_on("sqlite://").backend.thread_safe is True


def test_types_are_marked() -> None:
    """So that the checkers of users read them."""
    assert resources.files(package).joinpath("py.typed").is_file()


def test_version_is_that_of_the_distribution() -> None:
    """One place says it, the build reads it."""
    assert metadata.version("celery-sql-results") == package.__version__


@pytest.mark.parametrize("error", [package.SettingError, package.SchemaError])
def test_errors_of_set_up_are_celerys(error: type[Exception]) -> None:
    """Whoever catches Celery's error catches ours."""
    assert issubclass(error, ImproperlyConfigured)


def stored(error: BaseException) -> Any:
    """As a result in JSON names an exception that a task has raised."""
    return {"exc_type": type(error).__name__, "exc_module": type(error).__module__, "exc_message": list(error.args)}


WAYS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "json": lambda error: restored(stored(error)),
}
#: Those whose text is made of parts.
PARTS: dict[str, tuple[Any, ...]] = {
    "SettingError": ("result_expires", "tomorrow", "a number"),
    "TaskIdTooLong": ("task", "x" * 200, 155),
    "PayloadTooLarge": (8, "a text"),
}
PUBLIC = {name: getattr(package, name) for name in package.__all__}
ERRORS = [name for name, found in PUBLIC.items() if inspect.isclass(found) and issubclass(found, Exception)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ERRORS)
def test_errors_go_from_process_to_process(name: str, way: str) -> None:
    """Each comes back as its own class, with the same words and what somebody has noted on it."""
    error = PUBLIC[name](*PARTS.get(name, ("its words",)))
    error.noted = 1
    again = WAYS[way](error)

    assert (type(again), str(again), again.args) == (type(error), str(error), error.args)
    assert getattr(again, "noted", None) == (None if way == "json" else 1)
