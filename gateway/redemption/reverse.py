"""Reversals: points of a redemption given back, since what they paid for was returned."""

from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from uuid import UUID

from gateway.coalition.catalogue import Coalition, Partner
from gateway.database import Database, Tx
from gateway.ids import bucket_of, new_id_in
from gateway.ledger.items import Key
from gateway.ledger.post import Ledger
from gateway.ledger.post import sql as ledger_sql
from gateway.ledger.refused import post_once, refusal_of
from gateway.redemption.redeem import check_spending, redemptions_by_id, sql
from gateway.refusals import InputNotAccepted, RedemptionUnknown
from gateway.replay import digest


@dataclass(frozen=True, slots=True)
class ReverseRequest:
    """Whole points to give back; None: all that is left of the redemption."""

    idempotency_key: str
    redemption_id: UUID
    points: int | None
    occurred_at: datetime | None


@dataclass(frozen=True, slots=True)
class Reversal:
    """Points that went back to the lots they came from; those whose last day is over expired at once."""

    id: UUID
    redemption_id: UUID
    member_id: UUID
    partner_id: UUID
    programme_id: UUID
    points: int
    occurred_at: datetime
    posted_at: datetime
    period: date
    missed_period: date | None


async def reverse(
    database: Database, ledger: Ledger, coalition: Coalition, partner: Partner, request: ReverseRequest, now: datetime
) -> Reversal:
    """Give points of this partner's redemption back to the member, never more than it took in sum.

    Raises RedemptionUnknown, ReversalExceedsRedemption, InputNotAccepted, IdempotencyKeyReused, OccurredInFuture,
    OccurredTooLongAgo, PeriodNotOpen; DatabaseAway.
    """
    key = Key(partner.id, request.idempotency_key, _digest(request))
    post = partial(_post, database, coalition, partner, request, key, now)
    transaction_id = await post_once(ledger, key, request.points or 0, post)
    async with database.reading() as tx:
        return (await reversals_by_id(tx, [transaction_id]))[transaction_id]


async def _post(
    database: Database, coalition: Coalition, partner: Partner, request: ReverseRequest, key: Key, now: datetime
) -> UUID:
    check_spending(request.idempotency_key, request.points, None)
    bucket = bucket_of(request.redemption_id)
    async with database.reading() as tx:
        found = (await redemptions_by_id(tx, [request.redemption_id])).get(request.redemption_id)
        if found is None or found.partner_id != partner.id:
            raise RedemptionUnknown
    # The redemption's moment is that of a till, or a process, whose clock may be ahead.
    occurred_at = request.occurred_at or max(now, found.occurred_at)
    day = coalition.check_occurred(occurred_at, now)
    if occurred_at < found.occurred_at:
        raise InputNotAccepted("The reversal happened before its redemption.", "occurredAt")
    row = await database.post(
        ledger_sql.post_reversal,
        at=now,
        owner=partner.id,
        key=key.text,
        digest=key.digest,
        bucket=bucket,
        redemption=request.redemption_id,
        transaction=new_id_in(bucket),
        occurred=occurred_at,
        month=day.replace(day=1),
        today=coalition.day_of(now),
        points=request.points,
    )
    if row["verdict"] not in ("post", "replay"):
        raise refusal_of(row["verdict"], key=key.text, points=request.points or 0, month=day.replace(day=1))
    posted: UUID = row["posted"]
    return posted


def _digest(request: ReverseRequest) -> bytes:
    return digest("reversal", (request.redemption_id, request.points, request.occurred_at))


async def reversals_by_id(tx: Tx, transactions: list[UUID]) -> dict[UUID, Reversal]:
    """Posted reversals by their ids."""
    rows = await tx.all(sql.reversals_by_id, buckets=[bucket_of(id) for id in transactions], transactions=transactions)
    return {row["id"]: Reversal(**row) for row in rows}
