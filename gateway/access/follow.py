"""Keeps what a process knows of keys and revocations up to date, so that a revocation takes effect within two seconds."""

import asyncio

import structlog

from gateway.access.signing_keys import read_signing_keys
from gateway.access.signing_keys import sql as key_sql
from gateway.access.tokens import Tokens
from gateway.access.vault import Vault
from gateway.clock import Clock
from gateway.database import Database, DatabaseAway, Stuck

FOLLOW_SECONDS, READ_SECONDS = 1, 1

log = structlog.get_logger(__name__)


async def follow(database: Database, vault: Vault, tokens: Tokens, clock: Clock) -> None:
    """Read again and again until cancelled; while the database is away, what was read last holds.

    A reading that hangs with its connection is left behind; the next one has another.
    """
    under_way: set[asyncio.Task[None]] = set()
    try:
        while True:
            reading = asyncio.create_task(_try_to_read(database, vault, tokens, clock))
            under_way.add(reading)
            reading.add_done_callback(under_way.discard)
            await asyncio.wait({reading}, timeout=READ_SECONDS)
            await asyncio.sleep(FOLLOW_SECONDS)
    finally:
        for reading in under_way:
            reading.cancel()


async def _try_to_read(database: Database, vault: Vault, tokens: Tokens, clock: Clock) -> None:
    try:
        await read_again(database, vault, tokens, clock)
    except (DatabaseAway, Stuck):
        pass
    except Exception:
        log.exception("keys and revocations could not be read")


async def read_again(database: Database, vault: Vault, tokens: Tokens, clock: Clock) -> None:
    """Read what was revoked since the last time, and the keys where they have changed. Raises DatabaseAway, CannotOpen."""
    async with database.reading() as tx:
        await tokens.revocations.read_on(tx, clock.now())
        states = {row["key_id"]: row["state"] for row in await tx.all(key_sql.key_states)}
        if states != tokens.key_states:
            tokens.use_keys(await read_signing_keys(tx, vault))
