"""Expiry: whole lots whose last day has come."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from gateway.database import Database
from gateway.ledger.post import sql

WALLETS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Expired:
    """What one round expired: whole points in a number of wallets."""

    wallets: int
    points: int


async def expire(
    database: Database, programme_id: UUID, through: date, occurred_at: datetime, month: date, now: datetime
) -> AsyncIterator[Expired]:
    """Expire every lot whose last day is `through` or earlier, a few hundred wallets a transaction.

    It can be stopped and run again at any point: what has expired is not found again.
    """
    while True:
        row = await database.post(
            sql.post_expiries,
            at=now,
            programme=programme_id,
            through=through,
            occurred=occurred_at,
            month=month,
            most=WALLETS_AT_ONCE,
        )
        if row["wallets"] == 0:
            return
        yield Expired(row["wallets"], row["points"])
