"""What all commands have in common: where they look, how they print, and how they end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

import click
import sqlalchemy as sa
from celery.exceptions import BackendError, ChordError, ImproperlyConfigured
from kombu.exceptions import KombuError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from celery_sql_results._compat import memoized_property
from celery_sql_results.backend import DatabaseBackend
from celery_sql_results.boundaries import caught
from celery_sql_results.dialects import Found, connected, impl_for
from celery_sql_results.foreign import shown
from celery_sql_results.rows.queries import Asked, TooLong, Unanswerable
from celery_sql_results.schema import ESSENTIAL, State, look
from celery_sql_results.writing import describe

from .group import PREFIX
from .output import Output
from .times import DURATION, Clock

__all__ = [
    "DONE", "INTERRUPTED", "NOT_READY", "REFUSED", "TIMED_OUT", "UNKNOWN", "UNWELL",
    "Desk", "Ending", "verb",
]  # fmt: skip

#: How a command may end.
DONE, UNWELL, REFUSED, NOT_READY, UNKNOWN, TIMED_OUT, INTERRUPTED = 0, 1, 2, 3, 4, 124, 130
#: How somebody says which database is meant.
ADDRESS = (
    "name the app (celery -A proj results …), or the database (celery-sql-results --database-url …, or "
    "CELERY_RESULTS_DATABASE_URL)"
)
#: Seconds that a question may take, unless somebody says otherwise.
TIME_LIMIT = "10s"


class Ending(click.ClickException):
    """The command ends here, with a line for people.

    Args:
        message: the line.
        code: the exit code.
    """

    def __init__(self, message: str, code: int = REFUSED) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc] # click reads it of the error


class Desk:
    """What a command works with.

    Args:
        app: the Celery app, or what makes it.
        out: prints.
        seconds: the time limit of a question.
        looks: whether nothing is changed.
        spools: whether the spool is needed.
    """

    def __init__(self, app: Any, out: Output, seconds: float, looks: bool, spools: bool) -> None:
        self._app, self.out, self.seconds, self._looks, self._spools = app, out, seconds, looks, spools

    @memoized_property
    def app(self) -> Any:
        """The app: the user's, or one that knows nothing but the database."""
        return self._app() if callable(self._app) and not hasattr(self._app, "conf") else self._app

    @memoized_property
    def backend(self) -> DatabaseBackend:
        """The backend of the app.

        Raises:
            Ending: it is one of another kind.
        """
        if not self.app.conf.result_backend:
            raise Ending(f"no result_backend is set: {ADDRESS}")
        self.app.conf.database_create_tables_at_setup = False  # nothing is made by looking
        if not self._spools:  # it may be that of another user
            self.app.conf.database_spool_dir = None
        self._be_patient()
        try:
            backend = self.app.backend
        except ModuleNotFoundError:  # what Celery takes for a module may be part of a password
            raise Ending(f"result_backend is none that Celery can load (not shown): {ADDRESS}") from None
        if isinstance(backend, DatabaseBackend):
            return backend
        name, found = shown(self.app.main or "default"), shown(self.app.conf.result_backend)
        raise Ending(f"result_backend of the app {name!r} is {found}, but it must be sql+…: {ADDRESS}")

    def _be_patient(self) -> None:
        """Let the time limit hold also for a server that is silent, unless the user has set how long to wait for it."""
        conf = self.app.conf
        with caught(ArgumentError, ValueError):  # a URL that is none is told of by the backend
            url = make_url(str(conf.result_backend).removeprefix("sql+").removeprefix("db+"))
            limits = impl_for(url.get_backend_name()).reads.patience(url, self.seconds, self._looks)
            options = conf.get("database_engine_options") or {}
            own = options.get("connect_args") or {} if isinstance(options, Mapping) else None
            if isinstance(own, Mapping):
                ours = {name: value for name, value in limits.items() if name not in url.query}
                conf.database_engine_options = {**options, "connect_args": {**ours, **own}}

    @memoized_property
    def state(self) -> State:
        """What is there of the tables, as it is: nothing is made or changed by looking."""
        database = self.backend.database
        with connected(database.engine) as connection:
            return look(connection, database.models)

    @memoized_property
    def asked(self) -> Asked:
        """The database, for questions.

        Raises:
            Ending: there are no tables, or this role may not read them.
        """
        database, task = self.backend.database, self.backend.models.task
        with connected(database.engine) as connection:
            found = database.impl.look_at(connection, [task])[task]
        if not found.columns >= ESSENTIAL:
            raise Ending(f"{database.name} has no result tables yet: run upgrade, or start a worker")
        if "SELECT" in found.denied:
            raise Ending(f"this role may not read {task.name}: see grants")
        columns = _Columns({task: found}, lambda: self.state.tables)
        return Asked(database.engine, database.impl, database.models, columns, self.seconds)


class _Columns(Mapping[sa.Table, frozenset[str]]):
    """The columns that may be read of each table. Most questions are about tasks: the others are looked at if asked."""

    def __init__(self, found: Mapping[sa.Table, Found], others: Callable[[], Mapping[sa.Table, Found]]) -> None:
        self._found, self._others = found, others

    def __getitem__(self, table: sa.Table) -> frozenset[str]:
        if table not in self._found:
            self._found = {**self._others(), **self._found}
        found = self._found[table]
        return found.columns & set(table.columns.keys()) if "SELECT" not in found.denied else frozenset()

    def __iter__(self) -> Iterator[sa.Table]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def verb(
    name: str, is_list: bool = False, acts: bool | str = False, spools: bool = False
) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command of a function that takes a :class:`Desk` and its own options, and may return an exit code.

    Args:
        name: the name of the command.
        is_list: whether it prints rows, and so also CSV.
        acts: whether it changes something, or the option with which it does.
        spools: whether it looks at the spool too. What acts has it in any case.
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        @wraps(function)
        def run(ctx: click.Context, **given: Any) -> None:
            form = "json" if given["as_json"] else "csv" if given.get("as_csv") else "table"
            out = Output(form, Clock(given["utc"]), not ctx.obj.no_color)
            does = bool(given[acts]) if isinstance(acts, str) else acts
            desk = Desk(ctx.obj.app, out, given["time_limit"], not does, does or spools)
            with _told(desk, given["verbose"]):
                options = {each: given[each] for each in given if each in ours}
                ctx.exit(function(desk, **options) or DONE)

        made = click.command(name)(click.pass_context(run))
        ours = {param.name for param in made.params}
        made.params += _common(is_list)
        for param in made.params:  # click would take the name that the function knows it by: AS_JSON
            if isinstance(param, click.Option):
                param.envvar = f"{PREFIX}_{name}_{param.opts[0].strip('-').replace('-', '_')}".upper()
        return made

    return decorate


def _common(is_list: bool) -> Iterator[click.Parameter]:
    yield click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, one value a line.")
    if is_list:
        yield click.Option(["--csv", "as_csv"], is_flag=True, help="Print CSV.")
    yield click.Option(["--utc"], is_flag=True, help="Show times in UTC, not in the zone of this machine.")
    limit = "How long the database may take to answer a question."
    yield click.Option(
        ["--time-limit"], type=DURATION, metavar="TIME", default=TIME_LIMIT, show_default=True, help=limit
    )
    yield click.Option(["--verbose"], is_flag=True, help="Show the whole of an error.")


@contextmanager
def _told(desk: Desk, verbose: bool) -> Iterator[None]:
    """Whatever goes wrong is one line, unless the user wants more."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # whoever read has seen enough: click knows what to do
        raise
    except TooLong as error:
        if verbose:
            raise
        raise Ending(f"{error} (--since, --until, --state, --task …), or raise --time-limit") from error
    except Unanswerable as error:
        raise Ending(f"{error}") from error
    except (ImproperlyConfigured, SQLAlchemyError, BackendError, ChordError, KombuError, OSError) as error:
        if verbose:
            raise
        raise Ending(_line(desk, error)) from error


def _line(desk: Desk, error: Exception) -> str:
    if isinstance(error, SQLAlchemyError):
        return f"{desk.backend.database.name} did not do what was asked ({shown(describe(error))}); --verbose shows all"
    return f"{error}" if isinstance(error, ImproperlyConfigured) else shown(f"{type(error).__name__}: {error}")
