"""A TCP proxy in front of a server, which mistreats what passes: the network on a bad day."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable
from contextlib import suppress
from typing import Literal, TypeVar

from typing_extensions import Self

T = TypeVar("T")
Direction = Literal["to server", "to client"]
DIRECTIONS: tuple[Direction, ...] = ("to server", "to client")

#: Most bytes that are passed on at once: a large statement travels in several pieces, as on a real network.
PIECE = 16 * 1024
#: Seconds in which the proxy must have done what it is told; generous, since a loaded machine is slow.
PATIENCE = 60.0


class Proxy:
    """Passes TCP connections on to a port of loopback; a context manager. Its attributes may change at any time.

    Attributes:
        port: where it listens.
        target: the port that new connections are passed on to.
        delay: seconds that each piece waits before it is passed on.
        silent: accept and keep connections, but neither read nor pass on a byte: a black hole.
        resets: end the clients' connections as a host does that has crashed, not as a program that closes them.
        cuts: how many connections it has cut in the middle of what passed.
    """

    host = "127.0.0.1"

    def __init__(self, target: int) -> None:
        self.target = target
        self._budgets: dict[Direction, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._transports: set[asyncio.WriteTransport] = set()
        self.port, self.delay, self.silent, self.resets, self.cuts = 0, 0.0, False, False, 0

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._serve, self.host, 0, limit=PIECE))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Cut all connections, at whatever point they are."""
        self._do(self._cut_all())

    def cut_after(self, number: int, direction: Direction) -> None:
        """Cut the connection that carries the byte after the next ``number`` ones in one direction, just there."""
        self._budgets[direction] = number

    # -- in the loop's thread ------------------------------------------------------------------------------------

    def _do(self, work: Awaitable[T]) -> T:
        async def done() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(PATIENCE)

    async def _end(self) -> None:
        self._server.close()
        await asyncio.sleep(0.01)  # who was accepted just now is only being served from here on
        await self._cut_all()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _cut_all(self) -> None:
        for transport in list(self._transports):
            transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._transports.add(writer.transport)
        try:
            with suppress(OSError):  # the server is not there
                await self._connect(reader, writer)
        finally:
            if self.resets:  # nothing may linger: then the other end is told at once, and told that it was no end
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            self._transports.discard(writer.transport)
            self._tasks.discard(task)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._while_silent()
        from_server, to_server = await asyncio.open_connection(self.host, self.target, limit=PIECE)
        self._transports.add(to_server.transport)
        try:
            there = asyncio.create_task(self._pass_on(reader, to_server, "to server"))
            back = asyncio.create_task(self._pass_on(from_server, writer, "to client"))
            _done, pending = await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
        finally:
            to_server.close()  # after what is on its way: an end in the middle of a statement
            self._transports.discard(to_server.transport)

    async def _while_silent(self) -> None:
        while self.silent:
            await asyncio.sleep(0.01)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        with suppress(OSError):  # either end is gone: so is then the other
            await self._pump(reader, writer, direction)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        while piece := await reader.read(PIECE):
            if self.delay:
                await asyncio.sleep(self.delay)
            await self._while_silent()
            allowed = self._allowed(len(piece), direction)
            writer.write(piece[:allowed])
            await writer.drain()
            if allowed < len(piece):
                self.cuts += 1
                return

    def _allowed(self, length: int, direction: Direction) -> int:
        """How many bytes of a piece may pass. Who meets the end of the budget uses it up."""
        left = self._budgets.get(direction)
        if left is None:
            return length
        if length <= left:
            self._budgets[direction] = left - length
            return length
        del self._budgets[direction]
        return left
