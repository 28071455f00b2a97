"""What comes from elsewhere stays on its line."""

from __future__ import annotations

import logging

import pytest

from celery_sql_results.foreign import escaping, shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("9f1c-é-日本", "9f1c-é-日本"),
        ("a\n[ERROR] forged", r"a\n[ERROR] forged"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\udc80", r"\udc80"),
        ("x" * 501, "x" * 500 + "…"),
        ("postgresql://shop:p@ss:w/rd@host/db", "postgresql://shop:***@host/db"),
        ("postgresql://shop@host:5432/db", "postgresql://shop@host:5432/db"),
        ("redis://:secret@host", "redis://:***@host"),
        ("host=a password=secret port=1", "host=a password=*** port=1"),
        ("PWD=secret;UID=sa", "PWD=***;UID=sa"),
        ("password='two words' port=1", "password=*** port=1"),
        ('{"password": "secret", "port": 1}', '{"password": ***, "port": 1}'),
        ("(using password: YES)", "(using password: YES)"),
        ("x" * 470 + "https://vault:" + "secret" * 9 + "@host", "x" * 470 + "https://vault:***…"),
        ("x" * 480 + "https://vault:" + "secret" * 900 + "@host", "x" * 480 + "https://vault:***…"),
        (RuntimeError("two\nlines"), r"two\nlines"),
        (None, "None"),
    ],
)
def test_shown(value: object, text: str) -> None:
    assert shown(value) == text


def test_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Numbers keep their format."""
    logger = escaping(logging.getLogger("celery_sql_results.tests"))
    caplog.set_level(logging.INFO, logger.name)
    logger.info("task %s took %.1f s of %d", "a\r\nb", 1.25, 7)

    assert caplog.messages == [r"task a\r\nb took 1.2 s of 7"]
