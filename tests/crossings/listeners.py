"""Whoever listens to an engine, as tools for tracing do."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, event


def before(engine: Engine) -> None:
    """Be told of each statement before it is sent."""
    event.listen(engine, "before_cursor_execute", hear)


def after(engine: Engine) -> None:
    """Be told of each statement when it has run."""
    event.listen(engine, "after_cursor_execute", hear)


def hear(*_: Any) -> None:
    """Only that somebody is told matters."""
