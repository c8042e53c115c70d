"""Lines to the database that can be cut without a word."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit


class Line:
    """A line to the database. Once it is cut, what was open stays so and carries nothing; what is opened afterwards is whole.
    `held`: how many pieces it has not carried."""

    def __init__(self, path: str) -> None:
        self._path, self._is_open, self.opened, self.held = path, asyncio.Event(), 0, 0
        self._is_open.set()

    def cut(self) -> None:
        self._is_open.clear()
        self._is_open = asyncio.Event()
        self._is_open.set()

    def stall(self) -> None:
        """From now on nothing is carried, over new ones neither."""
        self._is_open.clear()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        is_open = self._is_open
        there, back = await asyncio.open_unix_connection(self._path)
        carrying = [asyncio.create_task(self._carry(*ends, is_open)) for ends in ((reader, back), (there, writer))]
        await asyncio.wait(carrying, return_when=asyncio.FIRST_COMPLETED)
        for each in carrying:
            each.cancel()
        for end in (writer, back):
            end.close()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, is_open: asyncio.Event) -> None:
        while data := await source.read(65_536):
            self.held += not is_open.is_set()
            await is_open.wait()
            sink.write(data)


@asynccontextmanager
async def line_to(dsn: str, folder: Path) -> AsyncIterator[tuple[str, Line]]:
    """An address behind which the database of another one lies, and the line to it."""
    where = parse_qs(urlsplit(dsn).query)["host"][0]
    line = Line(f"{where}/.s.PGSQL.5432")
    server = await asyncio.start_unix_server(line.connected, folder / ".s.PGSQL.5432")
    try:
        yield dsn.replace(quote(where, safe=""), quote(str(folder), safe="")), line
    finally:
        server.close()
