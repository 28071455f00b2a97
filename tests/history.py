"""A month of results, as many as one likes, made by the database itself: a million take it some seconds.

30 tasks ran on 8 workers from 4 queues, in workflows of 10, of which each fifth was a group. Of a hundred results, two
are failures, of 10 exceptions; of a thousand, one is REVOKED. 200 have begun and are not done.

Some are rare: the task `report.yearly` (20 of a million), the exception `RareError` (some of a million), the worker
`celery@gone`, which ran the first thousand only, and the state `REJECTED`, of which there are ten among these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Engine

from celery_sql_results.models import Models

#: When the newest was done, and for how long there had been results then, in milliseconds.
NEWEST, SPAN = datetime(2026, 3, 1), 30 * 86_400_000
#: The first rows of all are old.
OLD = 1_000
#: Members of a workflow.
MEMBERS = 10
#: Results that are not done.
BEGUN = 200

TASKS = [f"shop.{what}_{number}" for number in range(6) for what in ("pay", "ship", "count", "mail", "bill")]
WORKERS = [f"celery@shop-{number}" for number in range(8)]
QUEUES = ["orders", "mail", "reports", "celery"]
ERRORS = ["ValueError", "KeyError", "TimeoutError", "shop.errors.HttpError", "OSError", "TypeError", "MemoryError"]
ERRORS += ["sqlalchemy.exc.OperationalError", "shop.errors.OutOfStock", "RuntimeError"]
#: Somewhere in a traceback, to give it its usual length.
CALLS = "".join(f'  File "/srv/shop/pay/{line}.py", line {line}, in pay\n    return pay(order)\n' for line in range(20))

Expression = sa.ColumnElement[Any]
#: Eight digits, and a time so many milliseconds before the newest.
_HEX: dict[str, Callable[[Expression], Expression]] = {
    "postgresql": lambda n: sa.func.lpad(sa.func.to_hex(n), 8, "0", type_=sa.Text),
    "mysql": lambda n: sa.func.lower(sa.func.lpad(sa.func.hex(n), 8, "0"), type_=sa.Text),
    "sqlite": lambda n: sa.func.printf("%08x", n, type_=sa.Text),
}
_AGO: dict[str, Callable[[Expression], Expression]] = {
    "postgresql": lambda ms: sa.literal(NEWEST) - sa.func.make_interval(0, 0, 0, 0, 0, 0, ms / 1000.0),
    "mysql": lambda ms: sa.func.timestampadd(sa.text("MICROSECOND"), -1000 * ms, NEWEST),
    "sqlite": lambda ms: sa.func.strftime(
        "%Y-%m-%d %H:%M:%f000", f"{NEWEST}", sa.cast(-ms / 1000.0, sa.Text) + " seconds", type_=sa.Text
    ),
}
RESULT = '{"order": 48213, "status": "shipped", "weight": 12.75, "parts": [3, 17, 256, 4096], "by": "warehouse 7"}'
_ANALYZE = {"mysql": "ANALYZE TABLE celery_taskmeta", "postgresql": "VACUUM ANALYZE celery_taskmeta"}
#: The next id comes after these.
_NEXT = {
    "postgresql": ("SELECT setval('task_id_sequence', {})",),
    "mariadb": ("SELECT setval(task_id_sequence, {})",),
}


def fill(engine: Engine, models: Models, count: int) -> None:
    """Write so many results into an empty table, and let the database count what it has."""
    name = "mysql" if engine.dialect.name == "mariadb" else engine.dialect.name
    n = _numbers(count).c.n
    values = _values(n, count, _HEX[name], _AGO[name])
    select = sa.select(*(value.label(column) for column, value in values.items())).where(n < count).order_by(n)
    with engine.connect() as connection:
        connection.execute(models.task.insert().from_select(list(values), select, include_defaults=False))
        connection.commit()
        for statement in (*_NEXT.get(engine.dialect.name, ()), _ANALYZE.get(name, "ANALYZE")):
            connection.exec_driver_sql(statement.format(count))


def task_id(number: int) -> str:
    """The id of the result of a number; the newest has the highest."""
    return f"{number * 2_654_435_761 % 2**32:08x}-0000-4000-8000-000000000000"


def group_id(number: int) -> str:
    """The id of the group that a number is a member of."""
    return task_id(number - number % MEMBERS).replace("4000", "4001")


def _numbers(count: int) -> sa.Subquery:
    """All numbers from 0 on that have as many digits as the last of them."""
    ten = sa.union_all(*(sa.select(sa.literal_column(str(digit), sa.BigInteger).label("n")) for digit in range(10)))
    found = ten.subquery("d0")
    for place in range(1, len(str(count - 1))):
        digit = ten.subquery(f"d{place}")
        both = found.join(digit, sa.true())
        found = sa.select((found.c.n + digit.c.n * 10**place).label("n")).select_from(both).subquery(f"n{place}")
    return found


def _draw(n: Expression, seed: int, sides: int) -> Expression:
    """A number below `sides` that looks like chance and is the same each time."""
    return n * seed % 2_147_483_647 % sides


def _one_of(texts: Sequence[str], number: Expression) -> Expression:
    return sa.case(dict(enumerate(texts)), value=number)


def _values(
    n: Expression, count: int, digits: Callable[[Expression], Expression], ago: Callable[[Expression], Expression]
) -> dict[str, Expression]:
    """Each column, as an expression of the number of the row."""
    first = n - n % MEMBERS
    ids = [digits(each * 2_654_435_761 % 2**32) + "-0000-4000-8000-000000000000" for each in (n, first)]
    fate, is_open = _draw(n, 48_271, 1000), sa.and_(n >= count - 5 * BEGUN, n % 5 == 0)
    is_rare = sa.and_(n < OLD, n % 100 == 7)
    state = sa.case(
        (is_open, "STARTED"), (is_rare, "REJECTED"), (fate < 20, "FAILURE"), (fate == 20, "REVOKED"), else_="SUCCESS"
    )
    has_failed, null = sa.and_(fate < 20, sa.not_(sa.or_(is_open, is_rare))), sa.null()
    error = sa.case((_draw(n, 39_373, count) < 5, "RareError"), else_=_one_of(ERRORS, _draw(n, 69_621, len(ERRORS))))
    trace = sa.literal(f"Traceback (most recent call last):\n{CALLS}") + error + ": order 48213\n"
    failure = sa.literal('{"exc_type": "') + error + '", "exc_message": ["order 48213"], "exc_module": "builtins"}'
    ended = (count - 1 - n) * (SPAN // count)
    ran = _draw(n, 16_807, 2000) + sa.case((_draw(n, 62_089, 100) == 0, 60_000), else_=0)
    return {
        "id": n + 1,
        "task_id": ids[0],
        "status": state,
        "result": sa.cast(sa.case((has_failed, failure), else_=RESULT), sa.LargeBinary),
        "date_done": sa.case((sa.not_(is_open), ago(ended))),
        "traceback": sa.case((has_failed, trace)),
        "name": sa.case((n % 50_000 == 77, "report.yearly"), else_=_one_of(TASKS, _draw(n, 7_919, len(TASKS)))),
        "worker": sa.case((n < OLD, "celery@gone"), else_=_one_of(WORKERS, _draw(n, 104_729, len(WORKERS)))),
        "retries": sa.literal_column("0"),
        "queue": _one_of(QUEUES, _draw(n, 15_485_863, len(QUEUES))),
        "content_type": sa.literal("application/json"),
        "date_queued": ago(ended + ran + 500),
        "date_started": ago(ended + ran),
        "parent_id": sa.case((n % MEMBERS != 0, ids[1]), else_=null),
        "root_id": ids[1],
        "group_id": sa.case((n % (5 * MEMBERS) < MEMBERS, sa.func.replace(ids[1], "4000", "4001")), else_=null),
    }
