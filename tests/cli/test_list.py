"""`list`: which results there are, by each filter, in pages, for people and for programs."""

from __future__ import annotations

import pytest

from celery_sql_results import DatabaseBackend
from cli.rows import SOME, failure, put, row
from cli.run import Program
from servers import Database
from servers.pool import on

#: The ids of `SOME`. Two are not done: they began just before noon, which is later than all others ended.
IDS = [each["task_id"] for each in SOME]


def ids(program: Program, *options: str) -> list[str]:
    """The ids that a list shows."""
    ended = program.here("list", *options, "--json")
    assert (ended.code, ended.told.replace("no such results\n", "")) == (0, "")
    return [each["task_id"] for each in ended.json]


@pytest.mark.usefixtures("stored")
def test_newest_first(program: Program) -> None:
    """By when they ended, began or were sent."""
    found = [each["task_id"] for each in program("list", "--json").json]

    assert found == [IDS[place] for place in (6, 7, 0, 1, 2, 3, 4, 5)]


#: Options, and which of `SOME` they mean, by the place in it.
FILTERS: list[tuple[list[str], set[int]]] = [
    ([], {0, 1, 2, 3, 4, 5, 6, 7}),
    (["--state", "FAILURE"], {2, 3}),
    (["--state", "failure", "--state", "STARTED"], {2, 3, 6}),
    (["--state", "SUCCESS", "--state", "REVOKED"], {0, 1, 4, 5}),
    (["--state", "NEVER"], set()),
    (["--task", "shop.pay"], {1, 2}),
    (["--task", "shop.*"], {0, 1, 2, 4, 5, 6, 7}),
    (["--task", "SHOP.*"], set()),
    (["--task", "shop_pay"], set()),
    (["--task", "mail.sen?"], {3}),
    (["--worker", "*@shop-2"], {1}),
    (["--queue", "pay*"], {1}),
    (["--root", "root-1"], {0, 1, 2}),
    (["--group", "group-1"], {0}),
    (["--parent", "11111111-aaaa"], {1}),
    (["--min-runtime", "1m"], {4}),
    (["--exception", "HttpError"], {3}),
    (["--exception", "*Error"], {2, 3}),
    (["--exception", "Error"], set()),
    (["--since", "2026-03-01 11:57Z"], {0, 1, 2, 6, 7}),
    (["--until", "2026-03-01 11:57Z"], {3, 4, 5}),
    (["--since", "2026-03-01T11:00Z", "--until", "2026-03-01T11:56:30Z"], {3, 4}),
    (["--state", "FAILURE", "--task", "shop.*"], {2}),
]


@pytest.mark.usefixtures("stored")
def test_filters(results: Program, database: Database) -> None:
    """Each by itself and together, as each database compares. One that nobody knows cannot compute with times."""
    known = [each for each in FILTERS if database.kind != "portable" or "--min-runtime" not in each[0]]
    found = {" ".join(options): {IDS.index(id_) for id_ in ids(results, *options)} for options, _ in known}

    assert found == {" ".join(options): expected for options, expected in known}


@on("portable")
@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("verb", ["list", "failures", "stats", "forget --dry-run", "tail --since 1h --limit 1"])
def test_times_that_are_not_computed(results: Program, verb: str) -> None:
    """Who asks for them is told so, rather than that there is nothing."""
    ended = results(*verb.split(), "--min-runtime", "1m")

    told = "Error: this database does not compute how long a task ran: none can be found by that\n"
    assert (ended.code, ended.out, ended.told) == (2, b"", told)


def test_pages(results: Program, backend: DatabaseBackend) -> None:
    """A list goes on where a page has ended, also within one instant; all in all each comes once, in order."""
    put(backend, *(row(f"{number:04}", done=number // 500) for number in range(1200)))
    put(backend, *(row(f"open-{number}", done=None) for number in range(3)))

    found = ids(results, "--limit", "1203")

    newest = [f"{number:04}" for number in range(499, -1, -1)]
    assert (len(set(found)), found[:500], found[-1]) == (1203, newest, "1000")
    assert ids(results, "--limit", "2") == found[:2]


@pytest.mark.parametrize(
    ("state", "expected"), [("downloading", ["own"]), ("DOWNLOADING", []), ("received", ["known"])]
)
def test_a_state_of_the_users_own(results: Program, backend: DatabaseBackend, state: str, expected: list[str]) -> None:
    """It is taken as it is; Celery's may be written in small letters."""
    put(backend, row("own", status="downloading"), row("known", status="RECEIVED"))

    assert ids(results, "--state", state) == expected


@on("sqlite")
@pytest.mark.parametrize("limit", ["0", "-1", "many"])
def test_wrong_limits(results: Program, limit: str) -> None:
    """They are refused as click refuses them."""
    assert results.here("list", "--limit", limit).code == 2


@pytest.mark.usefixtures("stored")
def test_json(results: Program) -> None:
    """All that a list knows, by one name for people and programs, times in UTC and lengths in seconds."""
    [found] = results.here("list", "--task", "mail.*", "--json").json

    assert found == {
        "task_id": "33333333-dddd",
        "state": "FAILURE",
        "name": "mail.send",
        "worker": "celery@shop-1",
        "queue": "mail",
        "retries": 3,
        "queued": "2026-03-01T11:55:58.000000Z",
        "started": "2026-03-01T11:55:59.000000Z",
        "ended": "2026-03-01T11:56:00.000000Z",
        "when": "2026-03-01T11:56:00.000000Z",
        "waited": 1.0,
        "runtime": 1.0,
        "parent_id": None,
        "root_id": None,
        "group_id": None,
        "exception": "HttpError",
        "error": "shop.HttpError: 503",
    }


@pytest.mark.usefixtures("stored")
def test_csv(results: Program) -> None:
    """The columns of the widest table."""
    [found] = results.here("list", "--task", "mail.*", "--csv").csv

    assert found == {
        "when": "2026-03-01T11:56:00.000000Z",
        "state": "FAILURE",
        "name": "mail.send",
        "runtime": "1.0",
        "worker": "celery@shop-1",
        "task_id": "33333333-dddd",
        "error": "shop.HttpError: 503",
    }


@pytest.mark.usefixtures("stored")
def test_nothing_found(results: Program) -> None:
    """A person is told so, beside the output; a program gets no row. It is no error."""
    ended = results.here("list", "--task", "never")
    told = results.here("list", "--task", "never", "--json")

    assert (ended.code, ended.told) == (0, "no such results\n")
    assert (told.code, told.out) == (0, b"")


def test_rows_of_celerys_own_backend(results: Program, backend: DatabaseBackend) -> None:
    """They say less, and what is not done has the time at which that was stored."""
    less = dict.fromkeys(("name", "worker", "queue", "retries", "date_queued", "date_started", "content_type"))
    put(backend, failure("done", done=1, **less), row("begun", done=2, **{**less, "status": "STARTED"}))

    found = results.here("list", "--json").json

    shown = [(each["task_id"], each["state"], each["when"][11:16], each["runtime"], each["name"]) for each in found]
    assert shown == [("done", "FAILURE", "11:59", None, None), ("begun", "STARTED", "11:58", None, None)]
    assert ids(results, "--state", "STARTED") == ["begun"]
