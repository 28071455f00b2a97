"""`retry` runs tasks again with what they were called with, and never twice by accident."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery, chain

from celery_sql_results import DatabaseBackend
from cli.doing import await_, calls_in, chord_of, sender, worker
from cli.rows import failure, put, row
from cli.run import PATIENCE, Ended, Program
from servers import Database, Redis
from servers.pool import on
from servers.proxy import Proxy

ARGUMENTS = {"args": b'["/nowhere", 1]', "kwargs": b'{"currency": "EUR"}'}


class Shop:
    """A broker, a database, an app that sends, and the program of an operator."""

    def __init__(self, database: Database, redis: Redis, folder: Path) -> None:
        backend, self.broker = f"sql+{database.url}", redis.url()
        self.settings: dict[str, Any] = {
            "broker_url": self.broker,
            "result_backend": backend,
            "result_extended": True,
            "task_track_started": True,
        }
        self.app: Celery = sender(**self.settings)
        self.folder = folder
        self.program = Program("celery", database.url, self.settings)

    def fail(self, *args: Any, **kwargs: Any) -> str:
        """A task that fails, with a worker of its own."""
        with worker(self.folder, **self.settings):
            result = self.app.send_task("doing.pay", (str(self.folder), *args), kwargs)
            result.get(timeout=PATIENCE, propagate=False)
        return str(result.id)

    @property
    def waiting(self) -> int:
        """How many messages wait at the broker."""
        with self.app.connection_for_read() as connection:
            return int(connection.default_channel._size("celery"))

    def show(self, task_id: str) -> dict[str, Any]:
        """What `show` prints of a result."""
        found: dict[str, Any] = self.program("show", task_id, "--json").json[0]
        return found


@pytest.fixture
def shop(database: Database, redis: Redis, tmp_path: Path) -> Iterator[Shop]:
    """A shop of which nothing is left open."""
    found = Shop(database, redis, tmp_path)
    yield found
    found.app.backend.database.engine.dispose()
    found.app.close()


def stored(shop: Shop, *rows: dict[str, Any]) -> None:
    """Rows of tasks that have ended."""
    put(shop.app.backend, *({**ARGUMENTS, **each, "queue": each.get("from_queue")} for each in rows))


@on("postgresql", "mariadb", "sqlite")
def test_it_runs_again(shop: Shop) -> None:
    """Under the same id and with the same arguments; whoever awaits the id learns of the new outcome."""
    task_id = shop.fail(1, "zwei", currency="€")
    (shop.folder / "open").touch()

    sent = shop.program("retry", task_id, "--yes")
    claimed = shop.show(task_id)
    with worker(shop.folder, **shop.settings):
        value = shop.app.AsyncResult(task_id).get(timeout=PATIENCE)

    assert (sent.code, sent.lines) == (0, [f"{task_id} doing.pay: sent", "sent 1 of 1 task again"])
    assert (claimed["state"], "sent again at" in claimed["traceback"]) == ("RETRY", True)
    first, second = calls_in(shop.folder)
    assert second == first == {"args": [1, "zwei"], "kwargs": {"currency": "€"}, "id": task_id, "root": task_id}
    assert (value, shop.show(task_id)["state"], shop.show(task_id)["traceback"]) == ("paid", "SUCCESS", None)


def test_never_twice(shop: Shop) -> None:
    """A command that is given again sends nothing; what has failed again is sent again."""
    stored(shop, failure("t-1", name="doing.pay"), failure("t-2", name="doing.pay"))

    first = shop.program("retry", "--state", "FAILURE", "--yes", "--json")
    second = shop.program("retry", "--state", "FAILURE", "--yes", "--json")
    third = shop.program("retry", "t-1", "--state", "RETRY", "--yes")

    assert [first.json[-1]["sent"], second.json[-1]["sent"], shop.waiting] == [2, 0, 2]
    assert (third.code, "sent again before" in third.told) == (0, True)


@on("postgresql", "mariadb", "sqlite")
def test_two_operators(shop: Shop) -> None:
    """Of two who send the same tasks at the same time, one sends each."""
    number = 30
    stored(shop, *(failure(f"t-{n:02}", name="doing.pay") for n in range(number)))
    command = shop.program.command("retry", "--all", "--yes")
    both = [
        subprocess.Popen(command, env=shop.program.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]

    assert [process.wait(PATIENCE) for process in both] == [0, 0]
    assert shop.waiting == number


def test_a_new_id(shop: Shop) -> None:
    """What was revoked gets one, since workers run no id that was: the old result says which, and is not sent again."""
    stored(shop, row("t-1", status="REVOKED", result=b"null", name="doing.pay"))

    sent = shop.program("retry", "--state", "REVOKED", "--yes", "--json").json
    new, shown = sent[0]["sent_as"], shop.show("t-1")

    assert (sent[-1]["sent"], shop.waiting, new != "t-1") == (1, 1, True)
    assert (shown["state"], f"as {new}" in shown["traceback"]) == ("REVOKED", True)
    assert shop.program("retry", "--state", "REVOKED", "--yes", "--json").json[-1]["sent"] == 0
    assert shop.program("retry", "t-1", "--resend", "--yes").code == 0
    assert shop.waiting == 2


def test_success_is_only_sent_if_asked_for(shop: Shop) -> None:
    """And then under a new id, as its outcome stays."""
    stored(shop, row("t-1", name="doing.pay"))

    assert [shop.program("retry", "t-1", "--yes").code, shop.waiting] == [2, 0]
    assert shop.program("retry", "t-1", "--state", "SUCCESS", "--keep-id", "--yes").code == 2
    assert shop.program("retry", "t-1", "--state", "SUCCESS", "--yes").code == 0
    assert (shop.waiting, shop.show("t-1")["state"]) == (1, "SUCCESS")


REFUSALS = {
    "has not run": {"worker": None},
    "not what the task takes": {"name": "shop.pack", "kwargs": b"{}"},
    "nothing stored": {"args": None, "kwargs": None},
    "redacted": {"kwargs": b'{"card": {"number": "[redacted]"}}'},
    "abridged": {"args": b'"(1, 2, ...)"'},
    "no name": {"name": None},
    "not readable": {"args": b"\xff\xfe"},
    "a pickle of objects": {"args": b"\x80\x04\x8c\x02os\x8c\x06system\x93."},
    "unfinished": {"status": "STARTED", "date_done": None},
}


def test_refused(shop: Shop) -> None:
    """Each with its reason, and the others are not sent either, unless that is said."""
    rows = [{**failure(f"t-{n}", name="doing.pay"), **each} for n, each in enumerate(REFUSALS.values())]
    stored(shop, failure("good", name="doing.pay"), *rows)

    refused = shop.program("retry", "good", *(each["task_id"] for each in rows), "--yes")
    reasons = sorted(line.split()[0].rstrip(":") for line in refused.told.splitlines() if line.startswith("t-"))

    assert (refused.code, reasons, shop.waiting) == (2, [f"t-{n}" for n in range(len(REFUSALS))], 0)
    assert shop.program("retry", "--all", "--skip", "--yes").code == 0
    assert shop.waiting == 1


@on("postgresql", "mariadb", "sqlite")
def test_the_rest_of_a_chain(shop: Shop) -> None:
    """Celery stores it as failed, with what was known of its arguments: it would run without what comes first."""
    folder = str(shop.folder)
    parts = [shop.app.signature("doing.pay", (folder, n), app=shop.app) for n in range(2)]
    with worker(shop.folder, **shop.settings):
        last = chain(*parts, app=shop.app).apply_async()
        await_(lambda: last.state == "FAILURE")

    refused = shop.program("retry", last.id, "--yes")
    ended = shop.program("retry", "--all", "--skip", "--yes", "--json").json[-1]

    assert (refused.code, "a task before it failed" in refused.told) == (2, True)
    assert (ended["sent"], ended["refused"], shop.waiting) == (1, 1, 1)


def test_no_name(shop: Shop) -> None:
    """What a filter means is left out, as bodies of chords that failed; an id is refused."""
    stored(shop, failure("body", name=None), failure("t-1", name="doing.pay"))

    refused = shop.program("retry", "body", "--yes")
    ended = shop.program("retry", "--all", "--yes")

    assert (refused.code, refused.told.splitlines()[0]) == (2, "body: its name is not stored")
    assert (ended.code, "1 task left out: no name is stored" in ended.told, shop.waiting) == (0, True, 1)
    assert "None" not in refused.told + ended.told + ended.text


def test_as_the_app_sends_it(shop: Shop) -> None:
    """A task of the app has its own options, and is sent by its own means; to another queue all the same."""
    known = {"root_id": "root", "parent_id": "parent", "group_id": "group"}
    stored(shop, failure("t-1", name="shop.pack", **known))

    assert shop.program("retry", "t-1", "--yes", "--to-queue", "mail").code == 0
    with shop.app.connection_for_read() as connection:
        message = connection.SimpleQueue("mail").get(timeout=PATIENCE)
        message.ack()
    names = ("id", "root_id", "parent_id", "group", "timelimit", "shop")
    assert [message.headers[name] for name in names] == ["t-1", "root", "parent", "group", [60, 50], "Rome"]
    assert (message.properties["priority"], message.headers["expires"] is None) == (6, False)
    assert message.payload[:2] == [["/nowhere", 1], {"currency": "EUR"}]


def test_members_of_open_chords(shop: Shop) -> None:
    """Their chord would not count them: they are refused."""
    result = chord_of(shop.app, shop.app.signature("doing.pay", ("/nowhere",), app=shop.app, task_id="t-1"))
    assert shop.waiting == 1
    group_id = result.parent.id
    stored(shop, failure("t-1", name="doing.pay", group_id=group_id))

    refused = shop.program("retry", "t-1", "--yes")

    assert (refused.code, group_id in refused.told, shop.waiting) == (2, True, 1)


def test_dry_run(shop: Shop) -> None:
    """It shows what would be sent, and changes nothing."""
    stored(shop, failure("t-1", name="doing.pay"), failure("t-2", name="doing.pay", args=None, kwargs=None))

    ended = shop.program("retry", "--all", "--dry-run")

    assert (ended.code, ended.lines[-1], shop.waiting) == (0, "would send 1 task again", 0)
    assert [shop.show(id_)["state"] for id_ in ("t-1", "t-2")] == ["FAILURE", "FAILURE"]


@on("postgresql", "mariadb", "sqlite")
def test_the_broker_is_away(shop: Shop) -> None:
    """One line, and nothing is half done; so without a broker."""
    stored(shop, failure("t-1", name="doing.pay"))
    away = replace(shop.program, settings={**shop.settings, "broker_url": "redis://127.0.0.1:1/0"})
    alone = replace(shop.program, name="celery-sql-results")

    for program, said in ((away, "cannot be reached"), (alone, "which broker?")):
        ended: Ended = program("retry", "t-1", "--yes")
        assert (ended.code, said in ended.told.splitlines()[-1], "Traceback" in ended.told) == (2, True, False)
    assert shop.show("t-1")["state"] == "FAILURE"
    assert alone("retry", "t-1", "--yes", before=["--broker-url", shop.broker]).code == 0
    assert shop.waiting == 1


@on("sqlite")
@pytest.mark.parametrize("name", ["CELERY_BROKER_URL", "CELERY_BROKER_WRITE_URL"])
def test_the_option_wins(shop: Shop, name: str) -> None:
    """The broker of a call is meant, not that of the environment."""
    stored(shop, failure("t-1", name="doing.pay"))
    alone = shop.program.but(name="celery-sql-results", **{name: "redis://127.0.0.1:1/0"})

    assert alone("retry", "t-1", "--yes", before=["--broker-url", shop.broker]).code == 0
    assert shop.waiting == 1


@on("postgresql", "mariadb", "sqlite")
def test_a_crash_between_claim_and_send(shop: Shop, tmp_path: Path) -> None:
    """It is seen, it is not sent again by itself, and `--resend` sends it."""
    stored(shop, failure("t-1", name="doing.pay"))
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\n"
        "from celery import signals\n"
        "@signals.before_task_publish.connect(weak=False)\n"
        "def die(**_): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    crashed = shop.program.but(PYTHONPATH=str(tmp_path))("retry", "t-1", "--yes")
    shown = shop.show("t-1")

    assert (crashed.code, shown["state"], "not sent yet" in shown["traceback"]) == (-signal.SIGKILL, "RETRY", True)
    assert "no such order" in shown["traceback"]
    assert [shop.program("retry", "--all", "--yes").code, shop.waiting] == [0, 0]
    assert shop.program("retry", "t-1", "--state", "RETRY", "--yes", "--json").json[-1]["left"] == 1
    assert shop.program("retry", "--resend", "--yes").code == 0
    assert [shop.waiting, "not sent yet" in shop.show("t-1")["traceback"]] == [1, False]
    assert [shop.program("retry", "--resend", "--yes").code, shop.waiting] == [0, 1]


@on("postgresql", "mariadb", "sqlite")
def test_no_answer_of_the_broker(shop: Shop, tmp_path: Path) -> None:
    """It may have the message: that is sent once, stays claimed, and is sent again only if that is asked for."""
    stored(shop, failure("t-2", name="doing.pay"), failure("t-1", name="doing.pay"))
    (tmp_path / "sitecustomize.py").write_text(
        "from kombu.transport.redis import Channel\n"
        "put = Channel._put\n"
        "def no_answer(*args, **options):\n"
        "    put(*args, **options)\n"
        "    raise ConnectionResetError('no answer')\n"
        "Channel._put = no_answer\n"
    )
    ended = shop.program.but(PYTHONPATH=str(tmp_path))("retry", "--all", "--yes")

    assert (ended.code, "was sent is not known" in ended.told, "Traceback" in ended.told) == (2, True, False)
    assert [shop.waiting, shop.show("t-1")["state"], shop.show("t-2")["state"]] == [1, "RETRY", "FAILURE"]
    assert [shop.program("retry", "--all", "--yes").code, shop.waiting] == [0, 2]
    assert [shop.program("retry", "t-1", "--resend", "--yes").code, shop.waiting] == [0, 3]


def test_what_cannot_be_written(shop: Shop) -> None:
    """It was not sent for certain: it is as before."""
    stored(shop, failure("t-1", name="doing.pay"))
    other = replace(shop.program, settings={**shop.settings, "task_serializer": "nobody knows it"})

    ended = other("retry", "t-1", "--yes")

    assert (ended.code, shop.show("t-1")["state"], shop.waiting) == (2, "FAILURE", 0)


def asked(program: Program) -> tuple[subprocess.Popen[bytes], int]:
    """A call that asks whether to send one task, and the terminal at which it waits for the answer."""
    master, slave = os.openpty()
    command = program.command("retry", "--all")
    process = subprocess.Popen(command, env=program.environment, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    said = b""
    while b"Send 1 task again?" not in said:
        said += os.read(master, 1000)
    return process, master


def answered(process: subprocess.Popen[bytes], master: int) -> int:
    """The exit code of a call to which somebody says yes."""
    os.write(master, b"y\n")
    code = process.wait(PATIENCE)
    os.close(master)
    return code


def test_what_comes_meanwhile(shop: Shop) -> None:
    """What was stored since it was counted is not sent, whenever it failed."""
    stored(shop, failure("t-1", name="doing.pay"))
    process, master = asked(shop.program)
    stored(shop, failure("late", name="doing.pay", done=60))

    assert (answered(process, master), shop.waiting) == (0, 1)
    assert [shop.show(id_)["state"] for id_ in ("t-1", "late")] == ["RETRY", "FAILURE"]


@on("postgresql", "mariadb", "sqlite")
def test_the_broker_goes_away_before_the_answer(shop: Shop, redis: Redis) -> None:
    """Whoever is asked may think for long: the broker is looked at after that, and nothing is claimed without it."""
    stored(shop, failure("t-1", name="doing.pay"))
    with Proxy(redis.port) as proxy:
        broker = f"redis://127.0.0.1:{proxy.port}/0"
        program = replace(shop.program, settings={**shop.settings, "broker_url": broker})
        process, master = asked(program)
    assert answered(process, master) == 2
    assert (shop.show("t-1")["state"], shop.waiting) == ("FAILURE", 0)


@on("postgresql", "mariadb", "sqlite")
def test_ctrl_c(shop: Shop) -> None:
    """It stops after the task that is being sent, says how far it came, and goes on when it is called again."""
    number = 200
    stored(shop, *(failure(f"t-{n:03}", name="doing.pay") for n in range(number)))
    command = shop.program.command("retry", "--all", "--yes", "--json")
    process = subprocess.Popen(command, env=shop.program.environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)

    assert process.returncode == 130
    sent = shop.waiting
    assert 0 < sent < number
    assert shop.program("retry", "--all", "--yes").code == 0
    assert shop.waiting == number


@on("sqlite")
def test_queues(shop: Shop, backend: DatabaseBackend) -> None:
    """A task goes to the queue that it came from, or where it is sent."""
    stored(shop, failure("t-1", name="doing.pay", from_queue="orders"), failure("t-2", name="doing.pay"))

    shop.program("retry", "t-1", "--yes")
    shop.program("retry", "t-2", "--to-queue", "mail", "--countdown", "1h", "--yes")

    with shop.app.connection_for_read() as connection:
        sizes = [connection.default_channel._size(name) for name in ("orders", "mail", "celery")]
    assert sizes == [1, 1, 0]


@on("postgresql")
def test_who_awaits_it(shop: Shop) -> None:
    """The result of a task that failed is forgotten by nobody: `started` replaces the claim."""
    task_id = shop.fail()
    shop.program("retry", task_id, "--yes")
    with worker(shop.folder, **shop.settings):
        await_(lambda: len(calls_in(shop.folder)) == 2 and shop.show(task_id)["state"] == "FAILURE")

    task = shop.app.backend.models.task
    with shop.app.backend.database.engine.connect() as connection:
        traceback = connection.scalar(sa.select(task.c.traceback).where(task.c.task_id == task_id))
    assert "celery results retry" not in traceback
