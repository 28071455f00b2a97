"""Somebody else in the database, who may create functions and operators in a schema of the search_path.

PostgreSQL searches ``pg_catalog`` first, but takes an exact match of the types from any schema before one that needs a
conversion. So a neighbour's ``varchar = varchar`` is called, since PostgreSQL itself has only ``text = text``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import product

from servers import Database

__all__ = ["SCHEMA", "set_traps", "sprung"]

#: The schema in which he has set his traps.
SCHEMA = "neighbour"
#: What stands for each other in a call, so that one of them may match better than what PostgreSQL has.
STRINGS = ("varchar", "text", "bpchar", "name", '"char"', "regclass")
NUMBERS = ("int2", "int4", "int8", "numeric", "float4", "float8", "oid")
TIMES = ("timestamp", "timestamptz", "date", "interval")
ARRAYS = ("varchar[]", "text[]", "name[]", "int4[]", "int8[]")
KINDS = (STRINGS, NUMBERS, TIMES, ARRAYS, ("bool",), ("bytea",))
#: How operands are compared by a trap: as PostgreSQL would, by a type that all of their kind become.
COMPARED = ("text", "numeric", "timestamptz", "text", "bool", "bytea")
COMPARISONS = ("=", "<>", "<", "<=", ">", ">=")
#: The parameters of functions that take any type, or a type and its array.
ANY = ('"any"', "anyelement", "anycompatible", "anynonarray")
ANY_ARRAY = ("anyarray", "anycompatiblearray")
#: Most traps for one function of PostgreSQL's.
MOST = 300
#: Whatever PostgreSQL has under some names: the kind, the types of the parameters and of the result.
FUNCTIONS = """
SELECT p.proname, p.prokind, p.proretset, p.prorettype::regtype::text,
    ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS a (t, n) ORDER BY n)
FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind IN ('f', 'a')
    AND p.provariadic = 0 AND p.pronargs > 0 AND p.proname IN ({})
"""
#: The long names of types, as PostgreSQL tells them.
SHORT = {
    "character varying": "varchar",
    "character": "bpchar",
    "smallint": "int2",
    "integer": "int4",
    "bigint": "int8",
    "real": "float4",
    "double precision": "float8",
    "boolean": "bool",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
}


def set_traps(database: Database, statements: Collection[str]) -> int:
    """Set traps for every operator and function that statements may call, and return how many there are."""
    database.execute(f"CREATE TABLE {SCHEMA}.sprung (trap text)")
    calls = {name.lower() for statement in statements for name in re.findall(r"\b(\w+)\s*\(", statement)}
    names = ", ".join(f"'{name}'" for name in sorted(calls))
    traps = [
        *_operators(),
        *_of_the_catalog(),
        *(trap for found in database.execute(FUNCTIONS.format(names)) for trap in _functions(*found)),
    ]
    # One block for each, so that what PostgreSQL does not take, such as a type that a function cannot have, is no trap.
    blocks = "\n".join(f"BEGIN {trap} EXCEPTION WHEN OTHERS THEN NULL; END;" for trap in dict.fromkeys(traps))
    database.execute(f"DO $set$ BEGIN {blocks} END $set$")
    [(count,)] = database.execute(f"SELECT count(*) FROM pg_proc WHERE pronamespace = '{SCHEMA}'::regnamespace")
    return int(count)


def sprung(database: Database) -> list[str]:
    """The traps of his that were sprung."""
    return [trap for (trap,) in database.execute(f"SELECT DISTINCT trap FROM {SCHEMA}.sprung ORDER BY trap")]


def _function(name: str, types: Collection[str], returns: str, answer: str, trap: str) -> str:
    """Note who was called, and answer as PostgreSQL would."""
    note = f"INSERT INTO {SCHEMA}.sprung VALUES ($trap${trap}$trap$);"
    body = f"BEGIN {note} {answer}; END"
    return (
        f"CREATE FUNCTION {SCHEMA}.{name}({', '.join(types)}) RETURNS {returns} LANGUAGE plpgsql AS $body${body}$body$;"
    )


def _operators() -> Iterator[str]:
    for types, common in zip(KINDS, COMPARED, strict=True):
        for number, symbol in enumerate(COMPARISONS):
            for left, right in (*product(types, repeat=2), ("anyelement", "anyelement")):
                cast = [f"{value}::text::{common}" for value in ("$1", "$2")]
                yield _operator(symbol, f"compared_{number}", left, right, "bool", cast)
    for number, symbol in enumerate(("+", "-")):
        for left, right in (*product(NUMBERS, repeat=2),):
            yield _operator(symbol, f"computed_{number}", left, right, "int8", ["$1::int8", "$2::int8"])
    for number, symbol in enumerate(("||", "~~", "~")):
        for left, right in product(STRINGS, repeat=2):
            yield _operator(symbol, f"joined_{number}", left, right, "text" if symbol == "||" else "bool", ["$1", "$2"])


def _of_the_catalog() -> Iterator[str]:
    """Those with which drivers look for a type."""
    for number, symbol in enumerate(COMPARISONS):
        for left, right in (("oid", "regtype"), ("regtype", "oid"), ("oid", "regclass"), ("regclass", "oid")):
            yield _operator(symbol, f"known_{number}", left, right, "bool", ["$1::oid", "$2::oid"])


def _operator(symbol: str, name: str, left: str, right: str, returns: str, values: list[str]) -> str:
    answer = f"RETURN {values[0]} OPERATOR(pg_catalog.{symbol}) {values[1]}"
    function = _function(name, (left, right), returns, answer, f"{left} {symbol} {right}")
    made = f"FUNCTION = {SCHEMA}.{name}, LEFTARG = {left}, RIGHTARG = {right}"
    return f"{function} CREATE OPERATOR {SCHEMA}.{symbol} ({made});"


def _functions(name: str, kind: str, is_set: bool, returns: str, types: list[str]) -> Iterator[str]:
    types = [SHORT.get(each, each) for each in types]
    for combination in _combinations(types):
        trap = f"{name}({', '.join(combination)})"
        if kind == "a":
            yield _aggregate(name, combination, trap)
            continue
        given = ", ".join(f"${n}::{type_}" if type_ in SHORT.values() else f"${n}" for n, type_ in enumerate(types, 1))
        result = combination[0].removesuffix("[]") if returns in ("anyelement", "anycompatible") else returns
        answer = f"RETURN QUERY SELECT pg_catalog.{name}({given})" if is_set else f"RETURN pg_catalog.{name}({given})"
        if returns == "void":
            answer = f"PERFORM pg_catalog.{name}({given})"
        yield _function(name, combination, f"SETOF {result}" if is_set else result, answer, trap)


def _aggregate(name: str, types: tuple[str, ...], trap: str) -> str:
    function = _function(f"{name}_of", ("int8", *types), "int8", "RETURN $1", trap)
    made = f"SFUNC = {SCHEMA}.{name}_of, STYPE = int8, INITCOND = '0'"
    return f"{function} CREATE AGGREGATE {SCHEMA}.{name}({', '.join(types)}) ({made});"


def _combinations(types: list[str]) -> Iterator[tuple[str, ...]]:
    """Other types for the parameters of a function: all of them, or, of many parameters, others for one at a time."""
    choices = [_like(type_) for type_ in types]
    if len(types) <= 3:
        found = list(product(*choices))
        yield from found[:MOST]
        return
    for place, choice in enumerate(choices):
        yield from ((*types[:place], other, *types[place + 1 :]) for other in choice)


def _like(type_: str) -> tuple[str, ...]:
    if type_ in ANY:
        return ("anyelement", *(each for kind in KINDS for each in kind))
    if type_ in ANY_ARRAY:
        return ARRAYS
    return next((kind for kind in KINDS if type_ in kind), (type_,))
