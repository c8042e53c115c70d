"""Pools of connections, one for each role, and what is begun on them."""

import asyncio
import socket
from asyncio import Semaphore
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

import asyncpg

from gateway.database.dead import DeadConnections
from gateway.database.failures import AWAY, LostRace, Stuck, telling_away
from gateway.database.tx import APPLICATION_ROLE, COMMAND_SECONDS, POSTER_ROLE, READER_ROLE, Listener, Row, Tx
from gateway.parties import Shares
from gateway.session_settings import ASKED_TIMES, IDLE_SECONDS, UNTAKEN_SECONDS, WHERE_NOBODY_IS
from gateway.statements import Statement

if TYPE_CHECKING:
    from pgqueuer.queries import Queries

ACQUIRE_SECONDS = 5
GRACE_SECONDS = 2
SNAPSHOT_SECONDS = 3_600
SEND_BUFFER_BYTES = 1024 * 1024
OWN_SETTINGS = {"application_name": "loyalty-gateway", "timezone": "UTC", **WHERE_NOBODY_IS}
DECIDE_TRIES = 5

T = TypeVar("T")

# One round trip begins the transaction and says who reads; set_config's last argument ends it with the transaction.
_WHO_READS = """begin read only;
select set_config('app.partner', '{partner}', true), set_config('app.member', '{member}', true)"""


class _Taken:
    """A connection of a pool, for the length of a block, within the share of whoever it is for.

    Raises Stuck where all are at work for ACQUIRE_SECONDS.
    """

    __slots__ = ("_connection", "_pool", "_share")

    def __init__(self, pool: Any, share: Semaphore) -> None:
        self._pool, self._share = pool, share

    async def __aenter__(self) -> Any:
        try:
            async with asyncio.timeout(ACQUIRE_SECONDS if self._share.locked() else None):
                await self._share.acquire()
        except TimeoutError:
            raise Stuck("Every connection that one party may have is at work.") from None
        try:
            self._connection = await self._pool.acquire(timeout=ACQUIRE_SECONDS)
        except BaseException as error:
            self._share.release()
            if isinstance(error, TimeoutError) and self._pool.get_size() == self._pool.get_max_size():
                raise Stuck("Every connection is at work.") from None
            raise
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._pool.release(self._connection)
        finally:
            self._share.release()


class Database:
    """Three pools of connections: one in the application's role, which reads everything and keeps what is no ledger; one
    in the role that posts and can do nothing else; and one in the role that reads for partners and members and sees
    nothing but their own rows."""

    def __init__(self, dsn: str, size: int, statement_seconds: int | None = None) -> None:
        """`statement_seconds`: how long the server works at one statement; what is not answered then is given up soon after."""
        self._dsn, self._size = dsn, size
        self._seconds = COMMAND_SECONDS if statement_seconds is None else statement_seconds + GRACE_SECONDS
        self._settings = {} if statement_seconds is None else {"statement_timeout": f"{statement_seconds}s"}
        # One party has two thirds of them at most, so that there is always one for somebody else.
        self._working, self._reading, self._posting = (Shares(max(size * 2 // 3, 1)) for _ in range(3))
        self._pool: Any = None
        self._readers: Any = None
        self._posters: Any = None

    async def open(self) -> None:
        """Connect. Raises DatabaseAway."""
        with telling_away():
            self._pool = await self._connect(APPLICATION_ROLE, min(4, self._size))
            # Behind the wall a plan takes longer to make than to run, and no reader's values call for one of their own.
            self._readers = await self._connect(READER_ROLE, 0, plan_cache_mode="force_generic_plan")
            self._posters = await self._connect(POSTER_ROLE, 0)

    async def _connect(self, role: str, at_once: int, **settings: str) -> Any:
        return await asyncpg.create_pool(
            self._dsn,
            min_size=at_once,
            max_size=self._size,
            timeout=ACQUIRE_SECONDS,
            command_timeout=self._seconds,
            init=_prepare,
            reset=_nothing_to_reset,
            server_settings={**OWN_SETTINGS, "role": role, **self._settings, **settings},
        )

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cut every connection, also one that hangs."""
        for pool in (self._pool, self._readers, self._posters):
            if pool is not None:
                pool.terminate()

    async def watch(self) -> None:
        """Find out which connections have died without a word, and end them, until cancelled."""
        await DeadConnections(self._dsn, OWN_SETTINGS, (self._pool, self._readers, self._posters)).run()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Tx]:
        """A connection in autocommit, for selects and single statements. Raises DatabaseAway, Stuck."""
        with telling_away():
            async with _Taken(self._pool, self._working.own()) as connection:
                yield Tx(connection, self._seconds)

    async def post(self, statement: Statement, **given: Any) -> Row:
        """One call of a posting function, which commits by itself. Raises DatabaseAway, and what postings raise."""
        arguments = statement.arguments(given)  # before a connection is taken, which has better things to do
        with telling_away():
            async with _Taken(self._posters, self._posting.own()) as connection:
                row: Row = await connection.fetchrow(statement.text, *arguments, timeout=self._seconds)
                return row

    @asynccontextmanager
    async def reading_for(self, partner_id: UUID | None, member_id: UUID | None) -> AsyncIterator[Tx]:
        """A read-only transaction that sees what a partner or a member owns, and nothing else (row-level security).

        Raises DatabaseAway, Stuck.
        """
        said = _WHO_READS.format(partner=partner_id.hex if partner_id else "", member=member_id.hex if member_id else "")
        with telling_away(reads=True):
            async with _Taken(self._readers, self._reading.own()) as connection:
                try:
                    await connection.execute(said)
                    yield Tx(connection, self._seconds)
                finally:
                    await connection.execute("commit")

    async def read_for(self, partner_id: UUID | None, member_id: UUID | None, statement: Statement, **given: Any) -> list[Row]:
        """One call of a reading function, which says itself who reads: as `reading_for` sees, in one round trip.

        Raises DatabaseAway, Stuck.
        """
        with telling_away(reads=True):
            async with _Taken(self._readers, self._reading.own()) as connection:
                return await Tx(connection, self._seconds).all(statement, as_partner=partner_id, as_member=member_id, **given)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Tx]:
        """A connection inside one transaction that commits at the end of the block. Raises DatabaseAway, Stuck."""
        with telling_away():
            async with _Taken(self._pool, self._working.own()) as connection, connection.transaction():
                yield Tx(connection, self._seconds)

    async def decided(self, work: Callable[[Tx], Awaitable[T]]) -> T:
        """What `work` does in one transaction; it is done again where another one came first, and finds what that did.

        Raises LostRace after DECIDE_TRIES, DatabaseAway, Stuck.
        """
        for _ in range(DECIDE_TRIES - 1):
            with suppress(LostRace):
                async with self.transaction() as tx:
                    return await work(tx)
        async with self.transaction() as tx:
            return await work(tx)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Tx]:
        """A read-only transaction that sees one moment of the whole database, and stands in nobody's way: whoever reads what is
        found there may take its time. Raises DatabaseAway, Stuck."""
        with telling_away(reads=True):
            async with (
                _Taken(self._pool, self._working.own()) as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                await connection.execute(f"set local idle_in_transaction_session_timeout = '{SNAPSHOT_SECONDS}s'")
                yield Tx(connection, SNAPSHOT_SECONDS)

    @asynccontextmanager
    async def listener(self, channel: str, wake: Callable[[], None]) -> AsyncIterator["Listener"]:
        """A connection outside the pool that calls `wake` for every notification. Raises DatabaseAway."""
        with telling_away():
            # A wake-up that a crash forgets is no loss: whoever listens polls besides.
            own = {"role": APPLICATION_ROLE, "application_name": "loyalty-gateway listener", "synchronous_commit": "off"}
            connection = await asyncpg.connect(self._dsn, timeout=ACQUIRE_SECONDS, server_settings={**OWN_SETTINGS, **own})
            try:
                await _prepare(connection)
                await connection.add_listener(channel, lambda *_: wake())
                yield Listener(connection, channel)
            finally:
                connection.terminate()

    def schedules(self) -> "Queries":
        """The scheduler's own door to its tables."""
        from pgqueuer.queries import Queries  # slow to import, and only a process that serves needs it

        return Queries.from_asyncpg_pool(self._pool)

    async def is_up(self) -> bool:
        """Whether a statement gets through right now, to a server that can be written to."""
        try:
            async with self._pool.acquire(timeout=2) as connection:
                return bool(await connection.fetchval("select not current_setting('transaction_read_only')::boolean", timeout=2))
        except (*AWAY, asyncpg.PostgresError):
            return False


async def _prepare(connection: Any) -> None:
    """A batch of a thousand is more than a socket takes at once by default. What is left over would wait until the event
    loop is done with the next batch, and the database with it.

    And a connection may die without a word, as where an address moved to another machine: the kernel tells.
    """
    sock = connection._transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNTAKEN_SECONDS * 1_000)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, ASKED_TIMES)


async def _nothing_to_reset(connection: Any) -> None:
    """Every connection goes back as it came: transactions end with their blocks and nothing sets a session's state, so
    the round trip that resetting takes each time is spared."""
