"""What servers, clusters and proxies say in a failover, and what is made of it.

Each error passes. Where the server is not the primary any more, or does not serve, its connection is as good as lost.
A proxy that has no server for now stays the one to ask. Of a connection that has ended, the driver knows by itself.
"""

from __future__ import annotations

from typing import NamedTuple

import psycopg
import pymysql
import pytest
import sqlalchemy as sa
from psycopg import errors as pg
from sqlalchemy import exc

from celery_sql_results.dialects import impl_for
from servers import Database
from servers.pool import on

#: Who says something when, and the page that tells of it.
Source = str
POSTGRESQL: list[tuple[Exception, bool, Source]] = [
    # A standby, whether it was the primary before or not; a writer that Aurora has made a reader; a role set read-only.
    (
        pg.ReadOnlySqlTransaction("cannot execute INSERT"),
        True,
        "https://www.postgresql.org/docs/current/hot-standby.html",
    ),
    # A query that stands in the way of what a standby replays.
    (
        pg.SerializationFailure("conflict with recovery"),
        False,
        "https://www.postgresql.org/docs/current/hot-standby.html",
    ),
    # A sequence, or LISTEN, or what is told of a waiter, on a standby.
    (
        pg.ReadOnlySqlTransaction("cannot execute nextval()"),
        True,
        "https://www.postgresql.org/docs/current/hot-standby.html",
    ),
    # A session that a standby ends because it is in the way, or because the database is dropped.
    (pg.DatabaseDropped("conflict with recovery"), False, "https://www.postgresql.org/docs/current/hot-standby.html"),
    # A server that shuts down, has crashed, or starts. The driver knows that these connections are closed.
    (pg.AdminShutdown("terminating"), False, "https://www.postgresql.org/docs/current/errcodes-appendix.html"),
    (pg.CrashShutdown("terminating"), False, "https://www.postgresql.org/docs/current/errcodes-appendix.html"),
    (pg.CannotConnectNow("starting up"), False, "https://www.postgresql.org/docs/current/errcodes-appendix.html"),
    # The same while connecting: libpq hands over words and no code. RDS and Aurora say so for minutes in a failover.
    (
        psycopg.OperationalError("FATAL:  the database system is shutting down"),
        False,
        "https://github.com/brianc/node-postgres/issues/2650",
    ),
    (
        psycopg.OperationalError("FATAL:  the database system is not yet accepting connections"),
        False,
        "https://github.com/EnterpriseDB/repmgr/issues/894",
    ),
    # A database that is closed while RDS switches from blue to green.
    (
        psycopg.OperationalError('FATAL:  database "shop" is not currently accepting connections'),
        False,
        "https://github.com/tines/rails-pg-adapter/pull/12",
    ),
    # A commit whose wait for a synchronous standby ended with its server; what is there is told on the next attempt.
    (
        pg.AdminShutdown("canceling the wait for synchronous replication and terminating connection"),
        False,
        "https://www.postgresql.org/docs/current/warm-standby.html#SYNCHRONOUS-REPLICATION-HA",
    ),
    # All connections of the new primary are in use, since the whole fleet comes at once.
    (pg.TooManyConnections("sorry"), False, "https://www.postgresql.org/docs/current/errcodes-appendix.html"),
    # libpq with target_session_attrs=read-write, while there is no primary.
    (
        psycopg.OperationalError("session is read-only"),
        False,
        "https://www.postgresql.org/docs/current/libpq-connect.html",
    ),
    # Several hosts: one is away, and of the other the database is not there yet.
    (
        psycopg.OperationalError(
            'connection to server at "pg1" failed: Connection refused\n'
            'connection to server at "pg2" failed: FATAL:  database "shop" does not exist\n'
        ),
        False,
        "https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-MULTIPLE-HOSTS",
    ),
    # HAProxy closes, or refuses connections, while no server passes its check.
    (
        psycopg.OperationalError("server closed the connection unexpectedly"),
        False,
        "https://docs.haproxy.org/3.0/configuration.html",
    ),
    (psycopg.OperationalError("Connection refused"), False, "https://docs.haproxy.org/3.0/configuration.html"),
    # An Aurora or RDS Proxy that has no writer for now, or waits in vain for a connection to it.
    (
        psycopg.OperationalError("request to borrow a connection from the pool timed out"),
        False,
        "https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-proxy.troubleshooting.html",
    ),
    (
        psycopg.OperationalError("consuming input failed: server closed the connection unexpectedly"),
        False,
        "https://github.com/psycopg/psycopg/issues/731",
    ),
    # PgBouncer, whose server has gone, or cannot be reached for query_wait_timeout.
    (pg.ProtocolViolation("server conn crashed?"), False, "https://github.com/brianc/node-postgres/issues/2005"),
    (pg.ProtocolViolation("query_wait_timeout"), False, "https://www.pgbouncer.org/config.html"),
    (
        psycopg.OperationalError("server login has been failing, try again later (server_login_retry)"),
        False,
        "https://github.com/pgbouncer/pgbouncer/issues/1094",
    ),
    (
        pg.ProtocolViolation("pgbouncer cannot connect to server"),
        False,
        "https://gitlab.com/gitlab-org/container-registry/-/issues/454",
    ),
    # PgBouncer that is still connected to what is a standby now.
    (
        pg.ReadOnlySqlTransaction("cannot execute UPDATE"),
        True,
        "https://github.com/pgbouncer/pgbouncer/issues/1311",
    ),
]
MYSQL: list[tuple[int, bool, Source]] = [
    # A replica, or a primary before a planned switch.
    (1290, True, "https://mariadb.com/docs/server/reference/error-codes/mariadb-error-code-reference"),
    # A writer that Aurora has made a reader.
    (1290, True, "https://repost.aws/knowledge-center/aurora-mysql-db-cluser-read-only-error"),
    (1792, True, "https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html"),
    # InnoDB was started read-only, or to rescue what is there: MySQL 9.7 says 1015 or 1881, MariaDB 11.8 says 1036.
    (1015, True, "https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html"),
    (1036, True, "https://mariadb.com/docs/server/reference/error-codes/mariadb-error-code-reference"),
    (1881, True, "https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html"),
    (1836, True, "https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html"),
    (1874, True, "https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html"),
    # A member that has left group replication, whose group_replication_exit_state_action is OFFLINE_MODE.
    (3032, True, "https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html"),
    # Galera: a node without its cluster, and a conflict with another node.
    (1047, True, "https://mariadb.com/docs/reference/mdb/status-variables/wsrep_cluster_status/"),
    (1213, False, "https://galeracluster.com/library/documentation/certification-based-replication.html"),
    # A server that shuts down.
    (1053, True, "https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html"),
    # MaxScale and ProxySQL end connections, or wait for a server in vain.
    (1927, False, "https://mariadb.com/docs/server/reference/error-codes/mariadb-error-code-reference"),
    (9001, False, "https://proxysql.com/documentation/global-variables/mysql-variables/"),
    # RDS Proxy waits for the new writer in vain.
    (
        9501,
        False,
        "https://cloudkeeper.com/insights/blog/ensuring-high-availability-amazon-aurora-real-world-case-study",
    ),
    # HAProxy, and MySQL Router, close connections and refuse new ones.
    (2003, False, "https://dev.mysql.com/doc/mysql-errors/8.4/en/client-error-reference.html"),
    (2013, False, "https://dev.mysql.com/doc/mysql-errors/8.4/en/client-error-reference.html"),
    # The same where it is noticed between two statements, and where a connection is cut by the server's operator.
    (2006, False, "https://dev.mysql.com/doc/mysql-errors/8.4/en/client-error-reference.html"),
    (2055, False, "https://dev.mysql.com/doc/mysql-errors/8.4/en/client-error-reference.html"),
    (4031, False, "https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html"),
    # The same as MariaDB's library tells it, of which SQLAlchemy knows nothing.
    (5013, True, "https://github.com/mariadb-corporation/mariadb-connector-c/blob/3.4/include/errmsg.h"),
    (5014, True, "https://github.com/mariadb-corporation/mariadb-connector-c/blob/3.4/include/errmsg.h"),
    # Group replication: another member was quicker.
    (3101, False, "https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html"),
]


class Meaning(NamedTuple):
    """What is made of an error: the server is left, and the same statement may succeed later."""

    is_left: bool
    passes: bool


def meaning(name: str, orig: Exception, driver: type[Exception]) -> Meaning:
    impl = impl_for(name)
    told = exc.DBAPIError.instance("INSERT", {}, orig, driver)
    return Meaning(impl.is_demoted(orig, None), impl.is_transient(told))


@pytest.mark.parametrize(("orig", "is_left", "source"), POSTGRESQL, ids=lambda value: repr(value)[:40])
def test_postgresql(orig: Exception, is_left: bool, source: Source) -> None:
    assert meaning("postgresql", orig, psycopg.Error) == Meaning(is_left, True), source


@pytest.mark.parametrize(("code", "is_left", "source"), MYSQL)
@pytest.mark.parametrize("name", ["mysql", "mariadb"])
def test_mysql(name: str, code: int, is_left: bool, source: Source) -> None:
    assert meaning(name, pymysql.err.OperationalError(code, "…"), pymysql.err.Error) == Meaning(is_left, True), source


@on("mariadb")
@pytest.mark.parametrize("ends", [True, False])
def test_mysql_connector_without_a_number(database: Database, ends: bool) -> None:
    """It says with words only that it has no connection any more; then it is asked."""
    connector = pytest.importorskip("mysql.connector")
    engine = sa.create_engine(database.server.url(database.name, driver="mysqlconnector"), poolclass=sa.NullPool)
    with engine.connect() as connection:
        ((own,),) = connection.exec_driver_sql("SELECT CONNECTION_ID()").all()
        if ends:
            database.execute(f"KILL {own}")
        raw = connection.connection.dbapi_connection
        found = impl_for("mysql").is_demoted(connector.errors.OperationalError("not available"), raw)
        connection.invalidate()

    assert found is ends


#: What a standby says besides, and where; of a server that is none, it means something else.
ASKED: list[tuple[str, Source]] = [
    # A table that is not logged, and a transaction that is to write (as drivers of others begin it on Aurora).
    ("0A000", "https://github.com/temporalio/temporal/pull/5926"),
    # A lock that a standby does not take, and what asks "recovery is in progress".
    ("55000", "https://www.postgresql.org/docs/current/hot-standby.html"),
]


@pytest.mark.parametrize(("state", "source"), ASKED)
def test_postgresql_is_asked(postgresql: Database, state: str, source: Source) -> None:
    """What a standby says as well means something else where the server says that it is none."""
    orig = pg.lookup(state)("words")
    with sa.create_engine(postgresql.url, poolclass=sa.NullPool).connect() as connection:
        found = impl_for("postgresql").is_demoted(orig, connection.connection)

    assert found is False, source
    assert meaning("postgresql", orig, psycopg.Error) == Meaning(is_left=False, passes=False)


@pytest.mark.parametrize(
    ("name", "orig"),
    [
        ("postgresql", pg.UniqueViolation("duplicate key")),
        ("postgresql", pg.InsufficientPrivilege("denied")),
        ("mysql", pymysql.err.IntegrityError(1062, "duplicate entry")),
        ("mysql", pymysql.err.OperationalError(1205, "lock wait timeout")),
        ("sqlite", Exception("attempt to write a readonly database")),
        ("firebird", Exception("read-only")),
    ],
)
def test_any_other_error(name: str, orig: Exception) -> None:
    """It leaves the connection as it is."""
    assert impl_for(name).is_demoted(orig, None) is False
