"""Answers an HTTP health check for a server that cannot do so itself, as scripts behind xinetd do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from typing_extensions import Self


class Answerer:
    """Answers 200 if a question is answered with yes, else, or if it fails, 503; a context manager.

    Attributes:
        port: where it listens.
    """

    def __init__(self, question: Callable[[], bool]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    says_yes = question()
                except Exception:  # noqa: BLE001 - in each driver's own words: the server does not answer
                    says_yes = False
                self.send_response(200 if says_yes else 503)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:  # whoever has asked does not wait for the answer
                    self.close_connection = True

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="answerer", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
