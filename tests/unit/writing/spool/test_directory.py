"""The files of a spool: who may read them, how many there may be, who may empty it."""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path

import pytest

from celery_sql_results import SettingError
from celery_sql_results.writing.spool import directory as module
from celery_sql_results.writing.spool.directory import Directory, Full
from celery_sql_results.writing.spool.files import Unreadable
from support import fork

#: A user, and a group, that nobody is.
STRANGERS = 65534


@pytest.fixture
def spool(tmp_path: Path) -> Directory:
    """An empty one of 100 bytes."""
    return Directory(str(tmp_path / "new" / "spool"), "owner", 100)


def mode(path: Path) -> int:
    """Who may do what."""
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_owner_may_read(spool: Directory) -> None:
    """Whatever the mask of the process is."""
    before = os.umask(0)
    try:
        spool.add(b"1")
        with spool.alone():
            found = {mode(path) for path in spool.path.iterdir()}
    finally:
        os.umask(before)

    assert (mode(spool.path.parent), mode(spool.path), found) == (0o700, 0o700, {0o600})


@pytest.mark.parametrize(
    ("others", "is_used", "advice"),
    [
        (0o720, False, "chmod go-w {path}, or use another directory"),
        (0o702, False, "chmod go-w {path}, or use another directory"),
        (0o777, True, "use a directory of its own"),
        (0o1777, False, "use a directory of its own"),
    ],
)
def test_a_directory_that_others_may_write_to_is_refused(
    tmp_path: Path, others: int, is_used: bool, advice: str
) -> None:
    """They could plant results. What others use as well, such as `/tmp`, is left as it is, however it is named."""
    path = tmp_path / "spool"
    path.mkdir()
    (path / "of others").mkdir() if is_used else None
    path.chmod(others)
    with pytest.raises(SettingError) as told:
        Directory(f"{tmp_path}/../{tmp_path.name}/spool", "owner", 100)

    needed = f"a directory to which nobody but its owner may write: {advice.format(path=path)}"
    assert str(told.value) == f"database_spool_dir is '{path}', but it must be {needed}"


def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    """He could plant results, also where the superuser is who reads them."""
    others = tmp_path if os.geteuid() == 0 else Path("/")
    if others is tmp_path:
        os.chown(others, 65534, -1)

    with pytest.raises(SettingError, match=rf"^database_spool_dir is .* chown {os.geteuid()} "):
        Directory(str(others), "owner", 100)


@pytest.mark.parametrize("others", [0o730, 0o703, 0o777, 0o2770])
def test_one_above_that_others_may_write_to_is_refused(tmp_path: Path, others: int) -> None:
    """They could put another directory in its place. Not where a directory is sticky, as /tmp is."""
    (tmp_path / "above" / "spool").mkdir(parents=True, mode=0o700)
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(tmp_path / "above", -1, STRANGERS)
    (tmp_path / "above").chmod(others)
    if others & 0o002 or is_root:
        with pytest.raises(SettingError, match=r"^database_spool_dir is .* while others may write to .*above"):
            Directory(str(tmp_path / "above" / "spool"), "owner", 100)
    (tmp_path / "above").chmod(others | 0o1000)
    assert Directory(str(tmp_path / "above" / "spool"), "owner", 100).names() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its group")
@pytest.mark.parametrize(("group", "is_served"), [(54321, True), (1, False)], ids=["without a name", "of others"])
def test_one_above_that_ones_own_group_may_write_to(tmp_path: Path, group: int, is_served: bool) -> None:
    """As in a container, whose user and group are mere numbers; a group with another name may have other members."""
    above = tmp_path / "above"
    above.mkdir()
    os.chown(above, -1, group)
    above.chmod(0o770)
    child = fork()
    if not child:
        os.setegid(group)
        try:
            Directory(str(above / "spool"), "owner", 100)
        except SettingError:
            os._exit(1)
        os._exit(0)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (0 if is_served else 1)


def test_one_above_of_another_user_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give directories away")
    (tmp_path / "above").mkdir(mode=0o755)
    os.chown(tmp_path / "above", STRANGERS, -1)
    with pytest.raises(SettingError, match=r"^database_spool_dir is .*above belongs to another"):
        Directory(str(tmp_path / "above" / "spool"), "owner", 100)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give directories away")
@pytest.mark.parametrize(
    "kind", ["a link in between", "a stranger's link in a sticky directory", "a stranger's directory there"]
)
def test_a_way_that_others_may_change_is_refused(tmp_path: Path, kind: str) -> None:
    """They could lead it to another directory later."""
    (tmp_path / "data").mkdir(mode=0o700)
    shared = tmp_path / "shared"
    shared.mkdir()
    if kind == "a link in between":
        (shared / "current").symlink_to(tmp_path / "data")
        (tmp_path / "root").symlink_to("shared/../shared/current")
        shared.chmod(0o777)
        root = tmp_path / "root" / "spool"
    else:
        shared.chmod(0o1777)
        root = shared / "celery" / "spool"
        if "link" in kind:
            root.parent.symlink_to(tmp_path / "data")
        else:
            root.parent.mkdir()
        os.chown(root.parent, STRANGERS, -1, follow_symlinks=False)
    with pytest.raises(SettingError, match=r"^database_spool_dir is .*(others may write to|another)"):
        Directory(str(root), "owner", 100)
    assert not root.exists()


def test_a_way_with_links_of_ones_own(tmp_path: Path) -> None:
    """As an administrator lays them."""
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    (tmp_path / "spool").symlink_to("link/../link")
    spool = Directory(str(tmp_path / "spool"), "owner", 100)
    spool.add(b"1")
    assert [path.read_bytes() for path in (tmp_path / "data").glob("*/*.json")] == [b"1"]


def test_those_above_are_made_for_nobody_else(tmp_path: Path) -> None:
    """Whatever the mask of the process is."""
    before = os.umask(0)
    try:
        spool = Directory(str(tmp_path / "one" / "two" / "spool"), "owner", 100)
    finally:
        os.umask(before)
    assert [mode(path) for path in (spool.path, *spool.path.parents[:3])] == [0o700] * 4


def test_a_directory_that_was_swapped_is_not_served(tmp_path: Path) -> None:
    """Neither a link to another, nor a directory of somebody else."""
    spool = Directory(str(tmp_path / "spool"), "owner", 100)
    spool.add(b"1")
    (tmp_path / "other").mkdir(mode=0o777)
    (tmp_path / "other").chmod(0o777)
    (tmp_path / "other" / "0.json").write_bytes(b"forged")
    spool.path.rename(tmp_path / "away")
    (tmp_path / "other").rename(spool.path)
    for use in (spool.names, lambda: spool.read("0.json"), lambda: spool.add(b"2"), spool.alone().__enter__):
        with pytest.raises(OSError, match="nobody but its owner may write"):
            use()
    spool.path.rename(tmp_path / "other")
    spool.path.symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match=r"ymbolic link|Not a directory"):
        spool.names()
    spool.path.unlink()
    (tmp_path / "away").rename(spool.path)
    assert [spool.read(name) for name in spool.names()] == [b"1"]


def test_a_directory_that_was_taken_away_is_made_again(tmp_path: Path) -> None:
    """As an operator does who has emptied it: what comes next must not lie in the one that is gone."""
    spool = Directory(str(tmp_path / "spool"), "owner", 100)
    shutil.rmtree(tmp_path / "spool")
    spool.add(b"1")
    assert [path.read_bytes() for path in spool.path.iterdir()] == [b"1"]


def test_an_entry_of_another_user_is_refused(spool: Directory) -> None:
    """He may have been given the right to write for a while, or have linked a file of his own there."""
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    spool.add(b"1")
    [name] = spool.names()
    os.chown(spool.path / name, STRANGERS, -1)
    with pytest.raises(Unreadable, match="another user"):
        spool.read(name)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    """Nor is anything below it."""
    (tmp_path / "file").touch()

    for path in ("file", "file/below"):
        with pytest.raises(SettingError, match=r"^database_spool_dir is "):
            Directory(str(tmp_path / path), "owner", 100)


def test_oldest_first(spool: Directory) -> None:
    """And what was added is what is read."""
    for number in range(12):
        spool.add(b"%d" % number)

    assert [spool.read(name) for name in spool.names()] == [b"%d" % number for number in range(12)]


def test_it_is_never_larger_than_it_may_be(spool: Directory) -> None:
    """What is removed makes room, what is rejected does not."""
    spool.add(b"x" * 60)
    with pytest.raises(Full):
        spool.add(b"x" * 41)
    spool.add(b"x" * 40)
    for name, get_rid in zip(spool.names(), (spool.remove, spool.reject), strict=True):
        get_rid(name)
    again = Directory(str(spool.path.parent), "owner", 100)
    with pytest.raises(Full):
        again.add(b"x" * 61)
    again.add(b"x" * 60)

    assert len(again.names()) == 1


def test_what_others_add_counts(spool: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at once: a directory is not measured for each entry."""
    other = Directory(str(spool.path.parent), "owner", 100)
    spool.add(b"x" * 60)
    other.add(b"x" * 40)
    monkeypatch.setattr(module, "MEASURED_FOR", -1.0)

    with pytest.raises(Full):
        spool.add(b"x")


def test_owners_have_nothing_in_common(spool: Directory) -> None:
    """Nor has one that is named in part."""
    spool.add(b"1")

    assert Directory(str(spool.path.parent), "another", 100).names() == []


def test_a_failed_write_leaves_nothing(spool: Directory) -> None:
    """As on a disk that is full."""
    with pytest.raises(TypeError):
        spool.add([1])  # type: ignore[arg-type]

    assert list(spool.path.iterdir()) == []


def test_one_at_a_time(spool: Directory) -> None:
    """Another process or thread comes away empty-handed, and has its turn afterwards."""
    with spool.alone() as first, spool.alone() as second:
        assert (first, second) == (True, False)
    with spool.alone() as third:
        assert third


def test_a_child_does_not_hold_the_lock(spool: Directory) -> None:
    """One that was forked in the middle, as a worker does, and lives on."""
    reading, writing = os.pipe()
    with spool.alone():
        child = fork()
        if not child:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    with spool.alone() as again:
        found = again
    os.close(reading)
    os.close(writing)
    os.waitpid(child, 0)

    assert found


def test_what_a_dead_process_left_half_done_is_removed(spool: Directory) -> None:
    """But not what a living one is about to finish."""
    old, new = (spool.path / f"{name}.draft" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"12")
    os.utime(old, (0, 0))
    used = spool.used()

    assert (used, old.exists(), new.exists(), spool.names()) == (2, False, True, [])


def test_only_files_are_read(spool: Directory, tmp_path: Path) -> None:
    """No link to a file that somebody else may read, and no pipe that never ends."""
    (tmp_path / "secret").write_bytes(b"{}")
    (spool.path / "link").symlink_to(tmp_path / "secret")
    (spool.path / "folder").mkdir()
    os.mkfifo(spool.path / "pipe")

    for name in ("link", "folder", "pipe"):
        with pytest.raises(Unreadable, match=r"^it is not a file$"):
            spool.read(name)


def test_room_that_others_have_made(spool: Directory) -> None:
    """Is soon found: what is full is measured again."""
    other = Directory(str(spool.path.parent), "owner", 100)
    spool.add(b"x" * 90)
    with pytest.raises(Full):
        spool.add(b"y" * 20)
    other.remove(*other.names())
    time.sleep(0.1)  # to measure takes a tenth of the time at most
    spool.add(b"y" * 20)

    assert spool.used() == 20


def test_whose_it_is(spool: Directory) -> None:
    """A file for people, which takes no room of the entries; others learn it from there once an entry is old."""
    spool.note("sql+sqlite:///results.db")
    spool.add(b"x" * 100)
    other = Directory(str(spool.path.parent), "another", 100)
    young = list(other.siblings())
    [entry] = spool.names()
    os.utime(spool.path / entry, (0, 0))

    assert (young, list(spool.siblings())) == ([], [])
    assert [tuple(sibling)[:3] for sibling in other.siblings()] == [(spool.path, "sql+sqlite:///results.db", 1)]
