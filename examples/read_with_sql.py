"""The rows are open: with plain SQL, with SQLAlchemy, in your own joins. Run it: `python read_with_sql.py`."""

from __future__ import annotations

from celery import Celery
from sqlalchemy import create_engine, func, select, text

from celery_sql_results import TaskExtended, session_cleanup

DATABASE = "sqlite:///results.db"

app = Celery("read_with_sql", backend=f"sql+{DATABASE}")
app.conf.update(task_always_eager=True, task_store_eager_result=True)  # no broker and no worker needed here


@app.task
def divide(x: int, y: int) -> float:
    return x / y


def read_with_sql() -> None:
    """Any tool can do this; a result is JSON in UTF-8 unless `result_serializer` says otherwise."""
    with create_engine(DATABASE).connect() as connection:
        for row in connection.execute(text("SELECT name, status, result FROM celery_taskmeta ORDER BY id")):
            print(row.name, row.status, row.result.decode())


def read_with_classes() -> None:
    """The session has the engine, the options and the callback of the backend; the tables are there."""
    session = app.backend.ResultSession()
    with session_cleanup(session):
        states = select(TaskExtended.status, func.count()).group_by(TaskExtended.status).order_by(TaskExtended.status)
        print(*(f"{number} {state}" for state, number in session.execute(states)), sep=", ")
        failed = session.scalars(select(TaskExtended).where(TaskExtended.status == "FAILURE")).one()
        print(failed.to_dict()["traceback"].splitlines()[-1])


if __name__ == "__main__":
    for divisor in (1, 2, 0):
        divide.delay(10, divisor)
    read_with_sql()
    read_with_classes()
