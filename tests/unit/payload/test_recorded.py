"""What is recorded of a task: whatever somebody has sent, it never keeps an outcome from being stored."""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest

from celery_sql_results.payload.recorded import SENT, of_sending, recorded, sent_at
from support import request

NOON = datetime(2026, 7, 21, 12)


def test_a_header_tells_when() -> None:
    header = of_sending("t")
    told = sent_at(header, "t")

    assert told is not None
    assert header == f"{told.isoformat()} t"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("2026-07-21T12:00:00 t", NOON),
        ("2026-07-21T14:00:00+02:00 t", NOON),
        ("2026-07-21T12:00:00 another", None),
        ("2026-07-21T12:00:00", None),
        ("0001-01-01T00:00:00+14:00 t", None),
        ("at noon t", None),
        (" t", None),
        ("", None),
        (1784635200, None),
        (["2026-07-21T12:00:00 t"], None),
        (None, None),
    ],
)
def test_a_header_may_hold_anything(header: object, expected: datetime | None) -> None:
    assert sent_at(header, "t") == expected


def test_all_that_is_known() -> None:
    known = request(**{SENT: "2026-07-21T12:00:00 t"})

    assert recorded(known, NOON) == {
        "name": "shop.pay",
        "worker": "celery@shop-1",
        "retries": 2,
        "queue": "orders",
        "date_queued": NOON,
        "date_started": NOON,
        "parent_id": "the-parent",
        "root_id": "the-root",
        "group_id": "the-group",
    }


def test_what_is_not_known_is_left_out() -> None:
    unknown: dict[str, Any] = dict.fromkeys(("hostname", "parent_id", "root_id", "group", "delivery_info"))

    assert recorded(request(**unknown), None) == {"name": "shop.pay", "retries": 2}


@pytest.mark.parametrize("headers", [{SENT: "2026-07-21T12:00:00 t", "other": 1}, {}, None, "none"])
def test_headers_that_are_kept_apart(headers: object) -> None:
    """As with Celery's first protocol."""
    expected = NOON if isinstance(headers, dict) and headers else None

    assert recorded(request(headers=headers), None).get("date_queued") == expected


def test_a_request_of_celery_batches() -> None:
    """It has the message in a dict, and a name where Celery has a task."""
    known = vars(request(**{SENT: "2026-07-21T12:00:00 t"}))

    of_batches = SimpleNamespace(id="t", name="shop.pay", request_dict=known)

    assert recorded(of_batches, None) == recorded(request(**known), None)


@pytest.mark.parametrize("retries", [2**31, -1, "2", None, 1.5, True])
def test_retries_that_no_column_holds(retries: object) -> None:
    assert "retries" not in recorded(request(retries=retries), None)


@pytest.mark.parametrize("delivery", [None, "queue", {"routing_key": None}, []])
def test_a_delivery_that_tells_nothing(delivery: object) -> None:
    assert "queue" not in recorded(request(delivery_info=delivery), None)


def test_texts_are_what_a_column_takes() -> None:
    told = recorded(request(task="n" * 200, hostname="a\x00b", group="\ud800", root_id=7), None)

    assert (told["name"], told["worker"], told["group_id"], told["root_id"]) == ("n" * 155, "a\\x00b", "\\ud800", "7")


def test_a_task_is_not_its_own_parent() -> None:
    """As Celery says of one that is tried again."""
    assert "parent_id" not in recorded(request(parent_id="t"), None)


def test_a_request_without_attributes() -> None:
    assert recorded(object(), NOON) == {"date_started": NOON}
