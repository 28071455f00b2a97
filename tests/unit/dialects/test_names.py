"""PostgreSQL's operators by their full names mean what the short ones do, and what users have made is left alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.pool import NullPool

from celery_sql_results.dialects import impl_for
from servers import Database

THREE, FIVE, NOTHING = (sa.literal(value, sa.Integer) for value in (3, 5, None))
COLUMN = sa.column("name", sa.String)


@pytest.fixture
def engines(postgresql: Database) -> Iterator[tuple[sa.Engine, sa.Engine]]:
    """One that names operators, and one that does not."""
    made = sa.create_engine(postgresql.url, poolclass=NullPool), sa.create_engine(postgresql.url, poolclass=NullPool)
    impl_for("postgresql").qualify(made[0])
    yield made
    for engine in made:
        engine.dispose()


def texts(engines: tuple[sa.Engine, sa.Engine], statement: Any) -> list[str]:
    """A statement as each of them writes it."""
    return [str(statement.compile(dialect=engine.dialect)) for engine in engines]


@pytest.mark.parametrize(
    "expression",
    [
        FIVE - (FIVE - THREE),
        (FIVE - FIVE) - THREE,
        THREE - sa.literal(1) == FIVE - THREE,
        sa.and_(FIVE > THREE, sa.not_(THREE >= FIVE), FIVE != THREE),
        sa.or_(FIVE <= THREE, THREE < FIVE + FIVE),
        sa.any_(sa.literal([3, 5], sa.ARRAY(sa.Integer))) == FIVE,
        sa.literal("a") == sa.select(sa.literal("a")).scalar_subquery(),
        *(a.is_distinct_from(b) for a, b in product((THREE, FIVE, NOTHING), repeat=2)),
        *(a.is_not_distinct_from(b) for a, b in product((THREE, FIVE, NOTHING), repeat=2)),
    ],
    ids=str,
)
def test_the_value_is_the_same(engines: tuple[sa.Engine, sa.Engine], expression: Any) -> None:
    """Although a full name binds otherwise, and ``IS DISTINCT FROM`` has none."""
    named, plain = texts(engines, sa.select(expression))
    values = []
    for engine in engines:
        with engine.connect() as connection:
            values.append(connection.execute(sa.select(expression)).scalar_one())

    assert values[0] == values[1]
    assert ("OPERATOR(pg_catalog." in named, "OPERATOR" in plain) == (True, False)


@pytest.mark.parametrize(
    "expression",
    [
        sa.column("name", CITEXT()) == COLUMN,
        COLUMN.like("a%"),
        COLUMN.is_(None),
        sa.column("tags", sa.ARRAY(sa.String)) == sa.column("others", sa.ARRAY(sa.String)),
        COLUMN.op("@@")("a"),
    ],
    ids=str,
)
def test_what_is_not_ours_is_left_alone(engines: tuple[sa.Engine, sa.Engine], expression: Any) -> None:
    """Sessions of users go through the same engine: a type of an extension has operators of its own."""
    named, plain = texts(engines, sa.select(expression))

    assert named == plain
