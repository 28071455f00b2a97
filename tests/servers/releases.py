"""Other releases of the servers, each in the place of the usual one: `pytest --on mysql-9.7`.

Debian's PostgreSQL 15 is installed where such things are; the others lie in folders of their own. See scripts/servers.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from servers.base import Server
from servers.galera import Node
from servers.mariadb import MariaDB
from servers.postgresql import PostgreSQL

REMEDY = "scripts/servers all"
TRIXIE = Path("/var/cache/celery-sql-results/trixie/usr")
SID = Path("/var/cache/celery-sql-results/sid/usr")


class PostgreSQL15(PostgreSQL):
    """PostgreSQL 15, from the operating system's package, which speaks TLS."""

    remedy: ClassVar = REMEDY
    programs: ClassVar = Path("/usr/lib/postgresql/15/bin")

    def _install(self) -> None:
        certificate, key = self._home.certify(self.host)
        self.settings |= {"ssl": "on", "ssl_cert_file": str(certificate), "ssl_key_file": str(key)}
        super()._install()


class PostgreSQL17(PostgreSQL):
    """PostgreSQL 17, of a later release of Debian."""

    remedy: ClassVar = REMEDY
    programs: ClassVar = TRIXIE / "lib/postgresql/17/bin"


class MariaDB11(MariaDB):
    """MariaDB 11.8, of a later release of Debian."""

    remedy: ClassVar = REMEDY
    prefix: ClassVar = TRIXIE
    how_to_install: ClassVar = (
        *MariaDB.how_to_install,
        "--force",
    )  # its own way to look up this host does not run here


class MySQL(MariaDB):
    """MySQL 9.7. It is of the same family: what tests say of MariaDB holds here too, unless they ask for a plugin.

    Roles get its default way to prove who they are, which wants TLS or a library for RSA.
    """

    remedy: ClassVar = REMEDY
    prefix: ClassVar = SID
    messages: ClassVar = "share/mysql"
    program: ClassVar = "sbin/mysqld"
    installer: ClassVar = "sbin/mysqld"
    how_to_install: ClassVar = ("--initialize-insecure",)
    processes: ClassVar = "performance_schema.processlist"
    lacks: ClassVar = {
        "sequences": "MySQL has no sequences: its tables count, and never behind the ids that they hold.",
        "a time limit": "MySQL limits the time of SELECT only.",
        "a log of errors": "MySQL logs no statement that failed.",
    }
    defaults: ClassVar = {
        "bind_address": Server.host,
        "disable_log_bin": "1",
        "innodb_buffer_pool_size": "32M",
        "innodb_flush_log_at_trx_commit": "2",
        "innodb_flush_method": "nosync",
        "innodb_redo_log_capacity": "32M",
        "key_buffer_size": "1M",
        "max_connections": "300",
        "mysqlx": "OFF",
        "secure_file_priv": "NULL",
    }


#: By the names that `--on` takes.
RELEASES: dict[str, type[Server]] = {
    "postgresql-15": PostgreSQL15,
    "postgresql-17": PostgreSQL17,
    "mariadb-11.8": MariaDB11,
    "mysql-9.7": MySQL,
    "galera": Node,
}
