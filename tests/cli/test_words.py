"""Small things that people meet: variables, orders, refusals and words."""

from __future__ import annotations

import json

import pytest

from celery_sql_results import DatabaseBackend
from cli.rows import failure, put, row
from cli.run import Program
from servers.pool import on

pytestmark = on("sqlite")


@pytest.mark.usefixtures("stored")
def test_variables_are_named_as_the_options(program: Program) -> None:
    """Not as the functions call them: both ways to a command hear the same names."""
    known = {"LIST_JSON": "1", "LIST_TASK": "shop.*", "LIST_MIN_RUNTIME": "60", "LIST_STATE": "SUCCESS FAILURE"}
    heard = program.but(**{f"CELERY_RESULTS_{name}": value for name, value in known.items()})

    assert [each["task_id"] for each in heard("list").json] == ["44444444-eeee"]
    assert [each["task_id"] for each in heard("list", "--min-runtime", "80s").json] == ["44444444-eeee"]
    assert heard("list", "--min-runtime", "100s").json == []


@pytest.mark.parametrize(
    ("sort", "first"), [("results", "often"), ("p95", "slow"), ("total", "much"), ("failed", "wrong")]
)
def test_what_comes_first(results: Program, backend: DatabaseBackend, sort: str, first: str) -> None:
    often = [row(f"often-{number}", ran=1, name="often") for number in range(9)]
    much = [row(f"much-{number}", ran=40, name="much") for number in range(5)]
    put(backend, *often, *much, row("slow", ran=90, name="slow"), failure("wrong", ran=2, name="wrong"))
    found = results.here("stats", "--since", "2026-02-28", "--until", "2026-03-02", "--sort", sort, "--json").json

    assert (len(found), found[0]["task"]) == (4, first)


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("list --since 1h --until 2h", "--since must be before --until"),
        ("list --since 2026-01-02 --until 2026-01-02", "--since must be before --until"),
        ("failures --state SUCCESS", "what has succeeded is no failure"),
        ("failures --state failure --state success", "what has succeeded is no failure"),
    ],
)
def test_what_would_find_nothing_or_the_wrong_thing(results: Program, call: str, told: str) -> None:
    ended = results.here(*call.split())

    assert (ended.code, ended.out, told in ended.told) == (2, b"", True)


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("FAILED", "no such results: is FAILED a state, or is it FAILURE?\n"),
        ("sucess", "no such results: is sucess a state, or is it SUCCESS?\n"),
        ("MY_OWN", "no such results\n"),
        ("IGNORED", "no such results\n"),
    ],
)
def test_a_state_that_may_be_misspelt(results: Program, state: str, told: str) -> None:
    ended = results.here("list", "--state", state)

    assert (ended.code, ended.told) == (0, told)


def test_the_tasks_that_a_task_has_sent(results: Program, backend: DatabaseBackend) -> None:
    """Their ids, not the structure in which they are stored, and not under the title of the time of sending."""
    children = json.dumps([[["child-1", None], None], [["group-1", None], [[["child-2", None], None]]]]).encode()
    put(backend, row("parent", children=children), row("alone"))
    [parent], [alone] = (results.here("show", id_, "--json").json for id_ in ("parent", "alone"))

    assert (parent["children"], alone["children"]) == (["child-1", "child-2"], None)
    assert [*parent] == [*alone]
    assert results.here("show", "parent").lines[-4:] == ["has sent:", '  ["child-1", "child-2"]', "result:", "  3"]


def test_what_was_never_claimed_is_not_said_to_be(results: Program, backend: DatabaseBackend) -> None:
    put(backend, failure("t-1", args=b"[]", kwargs=b"{}"))
    ended = results.here("retry", "t-1", "--resend", "--dry-run")

    assert (ended.code, "1 task left: not claimed before" in ended.told) == (0, True)


def test_the_database_of_an_error_is_named(results: Program) -> None:
    away = results.but(url="postgresql+psycopg://nobody@127.0.0.1:1/none").here("list")

    assert (away.code, away.told.startswith("Error: postgresql+psycopg://nobody@127.0.0.1:1/none did not")) == (2, True)


@pytest.mark.parametrize("prefix", ["sql+", "db+"])
def test_the_scheme_is_told_as_it_was_written(results: Program, prefix: str) -> None:
    told = results.but(settings={"result_backend": f"{prefix}sqlite:///results.db"})("info", "--json").json[0]

    assert told["settings"]["result_backend"] == f"{prefix}sqlite:///results.db"


@pytest.mark.parametrize(
    ("ran", "told"),
    [(100, "1 min 40 s"), (120, "2 min"), (7200, "2 h"), (7260, "2 h 1 min"), (7 * 86400, "7 d"), (90000, "1 d 1 h")],
)
def test_lengths_of_time_have_no_empty_parts(results: Program, backend: DatabaseBackend, ran: int, told: str) -> None:
    put(backend, row("t-1", ran=ran))

    assert f"ran       {told}" in results.here("show", "t-1").lines
