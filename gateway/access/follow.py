"""Keeps what a process knows of keys and revocations up to date, so that a revocation takes effect within two seconds."""

import asyncio

import structlog

from gateway.access.signing_keys import read_signing_keys
from gateway.access.signing_keys import sql as key_sql
from gateway.access.tokens import Tokens
from gateway.access.vault import Vault
from gateway.clock import Clock
from gateway.database import Database, DatabaseAway, Stuck

FOLLOW_SECONDS, WATCH_SECONDS = 1, 1
# Where nothing comes for longer than a statement may take, the connection's other end has gone without a word.
HANG_SECONDS = 2

log = structlog.get_logger(__name__)


async def follow(database: Database, vault: Vault, tokens: Tokens, clock: Clock) -> None:
    """Read again and again until cancelled; while the database is away, what was read last holds.

    `database` is nobody else's: its statements take WATCH_SECONDS at most, and a connection that hangs is cut.
    """
    while True:
        try:
            if not await _is_answered(database, vault, tokens, clock):
                await database.close()  # also what hangs
                await database.open()
        except DatabaseAway:
            pass
        except Exception:
            log.exception("keys and revocations could not be read")
        await asyncio.sleep(FOLLOW_SECONDS)


async def _is_answered(database: Database, vault: Vault, tokens: Tokens, clock: Clock) -> bool:
    """Read, and tell whether the database goes on answering. Raises what else goes wrong."""
    reading = asyncio.create_task(read_again(database, vault, tokens, clock))
    try:
        rows = -1
        while not reading.done() and rows < tokens.revocations.rows:
            rows = tokens.revocations.rows
            await asyncio.wait({reading}, timeout=HANG_SECONDS)
        if not reading.done():
            return False
        await reading
    except DatabaseAway:
        return False
    except Stuck:
        pass
    finally:
        reading.cancel()
    return True


async def read_again(database: Database, vault: Vault, tokens: Tokens, clock: Clock) -> None:
    """Read what was revoked since the last time, and the keys where they have changed. Raises DatabaseAway, Stuck, CannotOpen."""
    async with database.reading() as tx:
        await tokens.revocations.read_on(tx, clock.now())
        states = {row["key_id"]: row["state"] for row in await tx.all(key_sql.key_states)}
        if states != tokens.key_states:
            tokens.use_keys(await read_signing_keys(tx, vault))
