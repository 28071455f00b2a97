"""TLS is the driver's affair: the options for it reach it."""

from __future__ import annotations

import pytest
from celery import states
from sqlalchemy.exc import OperationalError

from servers import MariaDB
from servers.pool import on, or_skip
from support import Backends


class Encrypted(MariaDB):
    """A MariaDB server with a certificate that nobody but itself vouches for."""

    def _arguments(self) -> list[str]:
        return [*super()._arguments(), f"--ssl-cert={self.certificate}", f"--ssl-key={self.key}"]

    def _install(self) -> None:
        self.certificate, self.key = self._home.certify(self.host)
        super()._install()


@on("mariadb")
def test_what_is_stored_travels_encrypted(backends: Backends) -> None:
    with or_skip("mariadb"), Encrypted() as server:
        server.create_database("shop")
        options = {"connect_args": {"ssl": {"ca": str(server.certificate)}}}
        backend = backends(server.url("shop"), database_engine_options=options)
        backend.store_result("t", 1, states.SUCCESS)
        with backend.database.engine.connect() as connection:
            _name, cipher = connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'").one()

        assert (backend.get_result("t"), cipher != "") == (1, True)


@on("postgresql")
def test_a_server_without_it_is_refused_at_once(backends: Backends) -> None:
    """If the options ask for it: the server of these tests speaks no TLS."""
    with pytest.raises(OperationalError, match="does not support SSL"):
        backends(database_engine_options={"connect_args": {"sslmode": "require"}})
