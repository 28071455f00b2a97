"""A password that changes, such as a token of AWS IAM, Azure or Vault, is fetched for each new connection.

Run it: `RESULTS=sql+postgresql+psycopg://user@host/db TOKEN_FILE=token python engine_callback.py`
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import Celery
from sqlalchemy import Engine, event


def fetch_token() -> str:
    """The password of the moment. With AWS: boto3.client("rds").generate_db_auth_token(host, port, user)."""
    return Path(os.environ["TOKEN_FILE"]).read_text().strip()


def use_token(engine: Engine) -> None:
    """Called with each engine once, before it connects: the place for all listeners of SQLAlchemy."""

    @event.listens_for(engine, "do_connect")
    def provide_token(_dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]) -> None:
        parameters["password"] = fetch_token()


app = Celery("tokens")
app.conf.update(
    result_backend=os.environ["RESULTS"],  # without a password
    database_engine_callback=use_token,  # or its import path, "engine_callback.use_token"
    task_always_eager=True,  # runs the task right here, without a broker and a worker
    task_store_eager_result=True,
)


@app.task
def add(x: int, y: int) -> int:
    return x + y


if __name__ == "__main__":
    stored = add.delay(2, 3).id
    print("stored and read with a token:", app.AsyncResult(stored).result)
