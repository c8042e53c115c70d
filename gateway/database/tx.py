"""A connection as the slices see it."""

from typing import Any

import asyncpg

from gateway.statements import Statement

APPLICATION_ROLE = "gateway_app"
READER_ROLE = "gateway_reader"
POSTER_ROLE = "gateway_poster"
COMMAND_SECONDS = 60
NOTIFIED_SECONDS = 2

Row = asyncpg.Record


class Tx:
    """Named queries with named parameters, inside one transaction or none."""

    __slots__ = ("_connection", "_seconds")

    def __init__(self, connection: Any, seconds: float) -> None:
        self._connection, self._seconds = connection, seconds

    async def one(self, statement: Statement, **given: Any) -> Row | None:
        """The first row, or None."""
        row: Row | None = await self._connection.fetchrow(statement.text, *statement.arguments(given), timeout=self._seconds)
        return row

    async def all(self, statement: Statement, **given: Any) -> list[Row]:
        """Every row."""
        rows: list[Row] = await self._connection.fetch(statement.text, *statement.arguments(given), timeout=self._seconds)
        return rows

    async def value(self, statement: Statement, **given: Any) -> Any:
        """The first column of the first row, or None."""
        return await self._connection.fetchval(statement.text, *statement.arguments(given), timeout=self._seconds)

    async def post(self, statement: Statement, **given: Any) -> Row:
        """Call a posting function as a part of this transaction, in the role that can do nothing else."""
        await self._connection.execute(f"set local role {POSTER_ROLE}")
        row = await self.one(statement, **given)
        await self._connection.execute(f"set local role {APPLICATION_ROLE}")
        assert row is not None
        return row

    async def run(self, statement: Statement, **given: Any) -> None:
        """No rows expected."""
        await self._connection.execute(statement.text, *statement.arguments(given), timeout=self._seconds)


class Listener:
    """A connection that is notified, and notifies."""

    def __init__(self, connection: Any, channel: str) -> None:
        self._connection, self._channel = connection, channel

    async def notify(self) -> None:
        """Wake every listener, in every process. Raises TimeoutError after NOTIFIED_SECONDS: a wake-up may be lost, and whoever
        notifies has better things to do than to wait for a connection that may be dead."""
        await self._connection.execute("select pg_notify($1, '')", self._channel, timeout=NOTIFIED_SECONDS)

    def is_closed(self) -> bool:
        """Whether nothing can be heard any more."""
        return bool(self._connection.is_closed())
