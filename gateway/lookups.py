"""Look-ups of others' names, which hold up nobody but who asks for that name.

libuv, on which uvloop runs, looks up two names at a time and forgets none that nobody waits for any more: one partner whose name
servers do not answer would keep all others, and the database, from being connected to.
"""

import asyncio
import socket
import threading
from contextlib import suppress
from typing import Any

import uvloop


class Loop(uvloop.Loop):
    """uvloop's loop with a thread for each name that is being looked up. What asyncpg connects to is looked up by libuv, which
    has nothing else to look up then."""

    def __init__(self) -> None:
        super().__init__()
        self._under_way: dict[tuple[Any, ...], asyncio.Future[Any]] = {}

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        """As socket.getaddrinfo, once for all who ask meanwhile. Raises OSError."""
        asked = host, port, family, type, proto, flags
        found = self._under_way.get(asked)
        if found is None:
            found = self.create_future()
            # A daemon: nobody waits at the end of the process for a name server that does not answer.
            looking = threading.Thread(target=self._look_up, args=(asked, found), name=f"look up {host!r}", daemon=True)
            try:
                looking.start()
            except RuntimeError as error:  # the machine has no more threads
                raise OSError(str(error)) from error
            self._under_way[asked] = found
            found.add_done_callback(lambda done: self._forget(asked, done))
        addresses: list[Any] = await asyncio.shield(found)
        return addresses

    def _forget(self, asked: tuple[Any, ...], done: "asyncio.Future[Any]") -> None:
        del self._under_way[asked]
        done.exception()  # is nobody's where everybody has given up

    def _look_up(self, asked: tuple[Any, ...], found: "asyncio.Future[Any]") -> None:
        try:
            told, said = found.set_result, socket.getaddrinfo(*asked)
        except Exception as error:
            told, said = found.set_exception, error  # type: ignore[assignment]
        with suppress(RuntimeError):  # of a loop that has been closed since
            self.call_soon_threadsafe(told, said)
