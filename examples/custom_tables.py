"""Two apps share a database, each with tables of its own. Run it: `python custom_tables.py`."""

from __future__ import annotations

from celery import Celery
from sqlalchemy import create_engine, inspect

DATABASE = "sqlite:///results.db"


def make_app(name: str, **settings: object) -> Celery:
    """An app that runs its tasks where they are called, so that this needs neither a broker nor a worker."""
    app = Celery(name, backend=f"sql+{DATABASE}", set_as_current=False)
    app.conf.update(task_always_eager=True, task_store_eager_result=True, **settings)
    return app


# A name or a schema that is left out stays Celery's own: celery_taskmeta and celery_tasksetmeta, where the role looks.
shop = make_app("shop", database_table_names={"task": "shop_results", "group": "shop_groups"})
billing = make_app(
    "billing",
    database_table_names={"task": "billing_results", "group": "billing_groups"},
    # "main" is the one schema of SQLite. Elsewhere, say "billing"; it must exist: CREATE SCHEMA billing
    database_table_schemas={"task": "main", "group": "main"},
)


@shop.task
def pack(order: int) -> str:
    return f"order {order} packed"


@billing.task
def charge(order: int) -> str:
    return f"order {order} paid"


if __name__ == "__main__":
    packed, charged = pack.delay(7), charge.delay(7)
    print("shop knows:", shop.AsyncResult(packed.id).result)
    print("billing knows:", billing.AsyncResult(charged.id).result)
    print("shop knows nothing of billing's task:", shop.AsyncResult(charged.id).state)
    print("tables:", *sorted(inspect(create_engine(DATABASE)).get_table_names()))
