"""The tables, and the classes that map them."""

from __future__ import annotations

import gc
import warnings
import weakref

import pytest
import sqlalchemy as sa
from celery import states
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.schema import CreateIndex, CreateTable

from celery_sql_results import Task, TaskExtended, TaskSet
from celery_sql_results.models import EXTENDED_COLUMNS, TableNames, models_for, utc_now
from celery_sql_results.schema import prepare_models

CELERYS = ["id", "task_id", "status", "result", "date_done", "traceback", "children"]
CELERYS_EXTENDED = [*CELERYS, "name", "args", "kwargs", "worker", "retries", "queue", "stamps"]
OURS = ["content_type", "date_queued", "date_started", "parent_id", "root_id", "group_id"]
OTHER = models_for(TableNames("other_tasks", "other_groups", "one", "two"))
ENDINGS = ("waiters", "chords", "parts", "workers", "version")


def types(dialect: sa.Dialect) -> dict[str, str]:
    """The type of each column whose type matters, as the dialect declares it."""
    columns = models_for().task.c
    names = ("id", "task_id", "result", "date_done", "traceback", "args", "retries")
    return {name: columns[name].type.compile(dialect=dialect) for name in names}


def test_columns_are_celerys_then_ours() -> None:
    """In Celery's order, so that both create the same table."""
    assert models_for().task.columns.keys() == [*CELERYS_EXTENDED, *OURS]
    assert models_for().group.columns.keys() == ["id", "taskset_id", "result", "date_done", "content_type"]


def test_our_columns_may_be_null() -> None:
    """So that Celery's own backend goes on writing."""
    columns = models_for().task.columns

    assert [name for name in OURS if not columns[name].nullable] == []


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        (postgresql.dialect(), ["BIGINT", "BYTEA", "TIMESTAMP WITHOUT TIME ZONE", "TEXT", "BYTEA"]),
        (sqlite.dialect(), ["INTEGER", "BLOB", "DATETIME", "TEXT", "BLOB"]),
        (mysql.dialect(), ["BIGINT", "LONGBLOB", "DATETIME(6)", "LONGTEXT", "LONGBLOB"]),
    ],
    ids=["postgresql", "sqlite", "mysql"],
)
def test_types(dialect: sa.Dialect, expected: list[str]) -> None:
    """What is too small or too coarse on MySQL is repaired there."""
    id_, result, date_done, traceback, args = expected
    wanted = {"id": id_, "result": result, "date_done": date_done, "traceback": traceback, "args": args}

    assert types(dialect) == {**wanted, "task_id": "VARCHAR(155)", "retries": "INTEGER"}


def test_mysql_stores_every_character_and_compares_ids_exactly() -> None:
    """The server's own character set is often latin1."""
    table = str(CreateTable(models_for().task).compile(dialect=mysql.dialect()))

    assert table.strip().endswith("CHARSET=utf8mb4 COLLATE utf8mb4_bin")


def test_sqlite_never_uses_an_id_again() -> None:
    """As Celery's own backend has it."""
    table = str(CreateTable(models_for().task).compile(dialect=sqlite.dialect()))

    assert "id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT" in table


@pytest.mark.parametrize(
    ("dialect", "where"),
    [
        *((dialect.dialect(), " WHERE status != 'SUCCESS'") for dialect in (postgresql, sqlite)),
        (mysql.dialect(), ""),
    ],
    ids=["postgresql", "sqlite", "mysql"],
)
def test_indexes_are_celerys_and_one_of_ours(dialect: sa.Dialect, where: str) -> None:
    """One on the time, for cleanup; ids are unique. Ours holds what has not succeeded, where databases know such."""
    indexes = [
        str(CreateIndex(index).compile(dialect=dialect))
        for table in (models_for().task, models_for().group)
        for index in table.indexes
    ]

    assert sorted(indexes) == [
        "CREATE INDEX ix_celery_taskmeta_date_done ON celery_taskmeta (date_done)",
        f"CREATE INDEX ix_celery_taskmeta_status ON celery_taskmeta (status, date_done){where}",
        "CREATE INDEX ix_celery_tasksetmeta_date_done ON celery_tasksetmeta (date_done)",
    ]


def test_the_same_names_give_the_same_tables() -> None:
    """Two backends share them; others have nothing in common."""
    assert models_for(TableNames("other_tasks", "other_groups", "one", "two")) is OTHER
    assert OTHER.task.metadata is not models_for().task.metadata


def test_names_and_schemas() -> None:
    """Each table has its own, and the sequence stands beside its table."""
    found = [(table.fullname, table.c.id.default.schema) for table in (OTHER.task, OTHER.group)]

    assert found == [("one.other_tasks", "one"), ("two.other_groups", "two")]


def test_our_tables_stand_beside_the_tasks() -> None:
    """And are called after them, so that two sets of tables in one schema have their own."""
    found = [table.fullname for table in (OTHER.waiters, OTHER.chords, OTHER.parts, OTHER.workers)]

    assert found == [f"one.other_tasks_{ending}" for ending in ("waiters", "chords", "parts", "workers")]


def test_version_table_stands_beside_the_tasks() -> None:
    """Two sets of tables in one schema have versions of their own."""
    assert (models_for().version_table, OTHER.version_table) == ("celery_taskmeta_version", "other_tasks_version")


def test_module_level_classes_are_those_of_the_default_names() -> None:
    """The ones that the manual names."""
    assert (Task, TaskExtended, TaskSet) == models_for().classes
    assert [cls.__table__.name for cls in (Task, TaskExtended, TaskSet)] == [
        "celery_taskmeta",
        "celery_taskmeta",
        "celery_tasksetmeta",
    ]


def test_task_extended_is_a_task_with_more_columns() -> None:
    """And Task is plain: it neither reads nor writes the others."""
    more = set(sa.inspect(TaskExtended).columns.keys()) - set(sa.inspect(Task).columns.keys())

    assert issubclass(TaskExtended, Task)
    assert more == set(EXTENDED_COLUMNS)


def test_mapping_warns_of_nothing() -> None:
    """New names in a process that has mapped others."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classes = models_for(TableNames("mapped_tasks", "mapped_groups")).classes
        sa.orm.configure_mappers()

    assert [cls.__name__ for cls in classes] == ["Task", "TaskExtended", "TaskSet"]


def test_to_dict_has_celerys_keys() -> None:
    """Without the id."""
    task, extended, group = Task("t"), TaskExtended("t"), TaskSet("g", b"[]")

    assert task.to_dict() == {"task_id": "t", **dict.fromkeys(CELERYS[2:])}
    assert extended.to_dict() == {"task_id": "t", **dict.fromkeys([*CELERYS[2:], *EXTENDED_COLUMNS])}
    assert group.to_dict() == {"taskset_id": "g", "result": b"[]", "date_done": None}


def test_repr() -> None:
    """As Celery's."""
    assert [repr(Task("t")), repr(TaskSet("g", None))] == ["<Task t state: None>", "<TaskSet: g>"]


def test_rows_are_written_by_sessions() -> None:
    """With the defaults that Celery's models have."""
    engine = sa.create_engine("sqlite://")
    models_for().task.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(TaskExtended("t"))
        session.commit()
        task = session.query(Task).one()
        found = (task.task_id, task.status, task.date_done <= utc_now())
    engine.dispose()

    assert found == ("t", states.PENDING, True)


@pytest.mark.parametrize("cls_number", [0, 1, 2])
def test_configure(cls_number: int) -> None:
    """Name and schema change, also for the sequence; None is the default of either."""
    cls = models_for(TableNames(f"configured_{cls_number}", f"configured_groups_{cls_number}")).classes[cls_number]
    default = "celery_tasksetmeta" if cls_number == 2 else "celery_taskmeta"
    found = []
    for given in ({"schema": "results", "name": "renamed"}, {}):
        cls.configure(**given)
        found.append((cls.__table__.name, cls.__table__.schema, cls.__table__.c.id.default.schema))

    assert found == [("renamed", "results", "results"), (default, None, None)]


def test_configured_table_is_the_one_that_is_written() -> None:
    """After `configure`, SQL names the new table."""
    cls = models_for(TableNames("written_tasks", "written_groups")).classes[0]
    cls.configure(schema="results", name="renamed")

    assert str(sa.select(cls.task_id)).split() == ["SELECT", "results.renamed.task_id", "FROM", "results.renamed"]


def test_now_is_utc_without_an_offset() -> None:
    """What every column of a time holds."""
    assert utc_now().tzinfo is None


def mapped(number: int) -> weakref.ref[object]:
    """A set of tables with classes, an engine that has prepared it, and nobody who keeps it."""
    models = models_for(TableNames(f"tenant_{number}", f"tenant_{number}_groups"))
    classes = models.classes
    engine = sa.create_engine("sqlite://")
    prepare_models(engine, models)
    with Session(engine) as session:
        session.add(classes[0]("t"))
        session.commit()
    engine.dispose()
    return weakref.ref(models)


def test_a_thousand_sets_of_names() -> None:
    """They are gone with those who used them, and so are their tables and classes."""
    mapped(0)
    gc.collect()
    before = counted()
    for number in range(1000):
        models_for(TableNames(f"many_{number}", f"many_{number}_groups"))
    left = [mapped(number) for number in range(20)]
    gc.collect()

    assert [ref() for ref in left if ref() is not None] == []
    assert [now <= then for now, then in zip(counted(), before, strict=True)] == [True, True]


def counted() -> tuple[int, int]:
    """How many tables and mappers there are in this process."""
    objects = gc.get_objects()
    return tuple(sum(isinstance(item, kind) for item in objects) for kind in (sa.Table, Mapper))  # type: ignore[return-value]


def test_one_engine_that_serves_many_names() -> None:
    """What was prepared is kept for as long as somebody uses it, not as long as the engine."""
    engine = sa.create_engine("sqlite://")
    left = []
    for number in range(50):
        models = models_for(TableNames(f"served_{number}", f"served_{number}_groups"))
        prepare_models(engine, models)
        left.append(weakref.ref(models))
    del models
    gc.collect()
    engine.dispose()

    assert [ref() for ref in left if ref() is not None] == []


def test_classes_are_mapped_when_somebody_asks() -> None:
    """Most backends need none."""
    models = models_for(TableNames("unmapped_tasks", "unmapped_groups"))
    before = counted()[1]
    engine = sa.create_engine("sqlite://")
    prepare_models(engine, models)
    engine.dispose()

    assert counted()[1] == before
    assert [cls.__table__.name for cls in models.classes] == ["unmapped_tasks", "unmapped_tasks", "unmapped_groups"]
    assert counted()[1] == before + 3


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (TableNames(), None),
        (TableNames("t", "g"), None),
        (TableNames("t", "t"), "t"),
        (TableNames("t", "T"), "T"),
        (TableNames("t", "t", "one", "two"), None),
        (TableNames("t", "t", "one", "one"), "t"),
        *((TableNames("t", f"t_{ending}"), f"t_{ending}") for ending in ENDINGS),
        *((TableNames("t", f"t_{ending}", "one"), None) for ending in ENDINGS),
        (TableNames("g_parts", "g"), None),
        (TableNames("task_id_sequence"), "task_id_sequence"),
        (TableNames("t", "task_id_sequence"), "task_id_sequence"),
        (TableNames("t", "task_id_sequence", "one", "two"), None),
        (TableNames("t", "taskset_id_sequence", "one", "two"), "taskset_id_sequence"),
        (TableNames("taskset_id_sequence", "g"), "taskset_id_sequence"),
        *(
            (TableNames("t", f"ix_t_{column}"), f"ix_t_{column}")
            for column in ("date_done", "status", "root_id", "group_id")
        ),
    ],
    ids=str,
)
def test_names_that_clash(names: TableNames, expected: str | None) -> None:
    """Two things of one backend would have one name in one schema."""
    assert names.clash == expected
