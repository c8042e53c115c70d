"""Posted transactions as the ledger knows them, whatever they are about."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from gateway.database import Tx
from gateway.ids import bucket_of
from gateway.ledger.post import sql


@dataclass(frozen=True, slots=True)
class Transaction:
    """`programme_id` is that of its first entry, None where it moved nothing; `points` the sum of its entries."""

    id: UUID
    kind: str
    member_id: UUID
    partner_id: UUID | None
    programme_id: UUID | None
    points: int
    occurred_at: datetime
    posted_at: datetime
    period: date
    missed_period: date | None


async def transactions_by_id(tx: Tx, transactions: Sequence[UUID]) -> dict[UUID, Transaction]:
    """Transactions by their ids; unknown ones, and those behind the reader's wall, are left out."""
    buckets = [bucket_of(id) for id in transactions]
    rows = await tx.all(sql.transactions_by_id, buckets=buckets, transactions=list(transactions))
    return {row["id"]: Transaction(**row) for row in rows}
