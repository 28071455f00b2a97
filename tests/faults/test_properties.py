"""What is read is what was stored, whatever it is; and final stays final, in whatever order writes come."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from celery import states
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celery_sql_results import DatabaseBackend
from servers import Database
from servers.pool import ALL, Pool, or_skip
from support import SERIALIZERS, app_on, close

#: Few examples: each is some round trips, and each run brings others.
few = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))

ANY_TEXT = st.text(st.characters(codec=None, categories=None), max_size=20)
TEXT = st.text(max_size=20)
NUMBERS = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False)
#: What JSON and all others can write.
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
#: What YAML reads as it was: it takes some control characters for line ends, and surrogates for nothing.
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | PRINTABLE,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(PRINTABLE, inner, max_size=4),
    max_leaves=10,
)
#: msgpack ends at 64 bits.
MSGPACK = PLAIN.filter(lambda value: "9223372036854775808" not in repr(value))
VALUES = {"json": PLAIN, "pickle": PLAIN | st.binary() | st.sets(TEXT), "yaml": YAML, "msgpack": MSGPACK}
STATES = st.sampled_from([*sorted(states.ALL_STATES - {states.PENDING}), "PROGRESS", "ÜBER"])


@pytest.fixture(scope="module", params=ALL)
def shared(request: pytest.FixtureRequest, servers: Pool) -> Iterator[Database]:
    """One database for all examples."""
    with or_skip(request.param), servers.database(request.param) as database:
        yield database


@pytest.fixture(scope="module")
def backends(shared: Database) -> Iterator[dict[str, DatabaseBackend]]:
    """A backend for each serializer."""
    made = {
        name: app_on(shared.url, result_serializer=name, accept_content=[name], result_extended=True).backend
        for name in SERIALIZERS
    }
    yield made
    for backend in made.values():
        close(backend)


@pytest.mark.parametrize("serializer", SERIALIZERS)
@few
@given(data=st.data())
def test_what_is_read_is_what_was_stored(
    backends: dict[str, DatabaseBackend], serializer: str, data: st.DataObject
) -> None:
    """A value under any state that is no failure; of its traceback, all that Python would show."""
    backend = backends[serializer]
    value, traceback = data.draw(VALUES[serializer]), data.draw(st.none() | ANY_TEXT)
    state = data.draw(STATES.filter(lambda state: state not in states.EXCEPTION_STATES))
    backend.forget("t")
    backend.store_result("t", value, state, traceback=traceback)
    meta = backend.get_task_meta("t")

    assert (meta["status"], meta["result"]) == (state, value)
    assert meta["traceback"] == shown(traceback)


def shown(traceback: str | None) -> str | None:
    """A text as any database takes it."""
    return (
        None if traceback is None else traceback.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
    )


@pytest.mark.parametrize("serializer", SERIALIZERS)
@few
@given(arguments=st.lists(PRINTABLE | st.integers(-(2**63), 2**63 - 1), max_size=3))
def test_exceptions(backends: dict[str, DatabaseBackend], serializer: str, arguments: list[Any]) -> None:
    """Class and arguments."""
    backend = backends[serializer]
    backend.forget("t")
    backend.store_result("t", LookupError(*arguments), states.FAILURE)

    assert repr(backend.get_result("t")) == repr(LookupError(*arguments))


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, [math.nan]], ids=repr)
def test_numbers_that_are_none(backends: dict[str, DatabaseBackend], serializer: str, value: Any) -> None:
    """NaN is not equal to itself, so its text is compared."""
    backend = backends[serializer]
    backend.forget("t")
    backend.store_result("t", value, states.SUCCESS)

    assert repr(backend.get_result("t")) == repr(value)


def expected(writes: Sequence[tuple[str, int]]) -> tuple[str, int | None]:
    """The model: SUCCESS is never overwritten, a finished state never by an unfinished one; else the last counts."""
    state, value = states.PENDING, None
    for new, number in writes:
        kept = state == states.SUCCESS or (state in states.READY_STATES and new not in states.READY_STATES)
        if not kept:
            state, value = new, number
    return state, value


@settings(few, max_examples=40)
@given(written=st.lists(STATES, max_size=7))
def test_final_stays_final_in_every_order(backends: dict[str, DatabaseBackend], written: list[str]) -> None:
    """Each write carries its number: which one is read tells which one has won."""
    backend = backends["json"]
    backend.forget("t")
    writes = list(zip(written, range(len(written)), strict=True))
    for state, number in writes:
        failed = state in states.EXCEPTION_STATES
        backend.store_result("t", ValueError(number) if failed else number, state)
    meta = backend.get_task_meta("t")
    value = meta["result"].args[0] if isinstance(meta["result"], ValueError) else meta["result"]

    assert (meta["status"], value) == expected(writes)
    assert (meta["date_done"] is not None) == (meta["status"] in states.READY_STATES)
