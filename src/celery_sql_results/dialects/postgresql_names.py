"""PostgreSQL's own operators and sequences by their full names, in whatever SQLAlchemy compiles for an engine.

PostgreSQL looks for an operator or a function in all schemas of the search_path, and an exact match of the types wins
over its own, which may need a conversion: it has ``text = text``, but no ``varchar = varchar``. Whoever may create
something in one of these schemas could let our role run it.
https://www.postgresql.org/docs/current/typeconv-oper.html
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.engine import Engine
from sqlalchemy.sql import operators

from celery_sql_results._compat import COMPILER, are_there

__all__ = ["qualify"]

#: What a statement of ours may compare or compute with, as PostgreSQL is to see it.
QUALIFIED: dict[Any, Any] = {
    operator: operators.custom_op(f"OPERATOR(pg_catalog.{symbol})", is_comparison=symbol not in "+-")
    for operator, symbol in {
        operators.eq: "=",
        operators.ne: "<>",
        operators.lt: "<",
        operators.le: "<=",
        operators.gt: ">",
        operators.ge: ">=",
        operators.add: "+",
        operators.sub: "-",
    }.items()
}
#: What has no full name, and is written as what it means.
DISTINCT = {operators.is_distinct_from: operators.ne, operators.is_not_distinct_from: operators.eq}
#: The types whose operators are PostgreSQL's. Others, as users may have in tables of their own, have some beside.
PLAIN = (
    sa.String,
    sa.Integer,
    sa.Numeric,
    sa.Float,
    sa.DateTime,
    sa.Interval,
    sa.LargeBinary,
    sa.Boolean,
    sa.types.NullType,
)


class _Qualifying:
    """The part of a compiler that names operators and sequences; see :func:`qualify`."""

    process: Any

    def visit_binary(self, binary: Any, override_operator: Any = None, **options: Any) -> str:
        compiled: Any = super()
        if override_operator is None and _is_plain(binary.left) and _is_plain(binary.right):
            if binary.operator in DISTINCT:
                return self._distinct(binary, DISTINCT[binary.operator], **options)
            # In brackets, since a full name binds otherwise than a symbol does.
            qualified = QUALIFIED.get(binary.operator)
            if qualified is not None:
                return f"({compiled.visit_binary(binary, override_operator=qualified, **options)})"
        return str(compiled.visit_binary(binary, override_operator=override_operator, **options))

    def _distinct(self, binary: Any, operator: Any, **options: Any) -> str:
        are_null = operator(binary.left.is_(None), binary.right.is_(None))
        return str(self.process(sa.func.coalesce(operator(binary.left, binary.right), are_null), **options))

    def visit_sequence(self, sequence: sa.Sequence, **options: Any) -> str:
        compiled: Any = super()
        return f"pg_catalog.{compiled.visit_sequence(sequence, **options)}"


def _is_plain(operand: Any) -> bool:
    kind = getattr(operand, "type", None)
    return isinstance(kind, PLAIN) and not isinstance(kind, CITEXT)


def qualify(engine: Engine) -> None:
    """Let statements on an engine, which have not begun, call operators of PostgreSQL's and no others."""
    dialect: Any = engine.dialect
    if are_there(COMPILER):
        dialect.statement_compiler = type("QualifyingCompiler", (_Qualifying, dialect.statement_compiler), {})
