"""What a replay does about files that cannot be read."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from celery_sql_results.models import models_for
from celery_sql_results.writing import TASK, Entry, Replay, Verdict
from celery_sql_results.writing.spool.directory import Directory
from celery_sql_results.writing.spool.files import dumps


@pytest.fixture
def limit() -> Iterator[tuple[int, int]]:
    """How many files this process may open, which is restored in the end."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_file_that_cannot_be_opened_for_now(tmp_path: Path, limit: tuple[int, int]) -> None:
    """It stays what it is: too many are open, and that passes."""
    directory = Directory(str(tmp_path / "spool"), "owner", 10_000)
    for task_id in "abc":
        directory.add(dumps(Entry(TASK, {"task_id": task_id, "status": "SUCCESS"})))
    restored, failed = [], []

    def restore(entry: Entry) -> None:
        restored.append(entry.row["task_id"])
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limit[1]))

    def judge(error: BaseException) -> Verdict:
        assert isinstance(error, OSError)
        failed.append(error.errno)
        return Verdict()

    with pytest.raises(OSError, match=r"\.json"):
        Replay(directory, models_for(), restore, judge, reach=bool)()
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)

    assert (restored, failed, len(directory.names())) == (["a"], [errno.EMFILE] * 2, 2)
    assert list(directory.path.glob("*.rejected")) == []
