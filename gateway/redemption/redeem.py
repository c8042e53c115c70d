"""Redeeming points at a partner, first-expiring lots first, all or nothing."""

from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from gateway.coalition.catalogue import Coalition, Partner
from gateway.database import Database, Row, Tx, load_queries
from gateway.ids import bucket_of
from gateway.ledger.post import Answer, Key, Ledger
from gateway.ledger.post import Redemption as RedemptionItem
from gateway.ledger.refused import refusal_of
from gateway.members.lookup import MemberRef, check_text, find_membership
from gateway.points import MAX_POINTS
from gateway.refusals import IdempotencyKeyReused, InputNotAccepted, NotAllowed, Refused
from gateway.replay import digest

sql = load_queries(__file__)


@dataclass(frozen=True, slots=True)
class RedeemRequest:
    """What a till sends: whole points of a programme, and the till's own reference if it has one."""

    idempotency_key: str
    member: MemberRef
    programme: str
    points: int
    reference: str | None
    occurred_at: datetime | None


@dataclass(frozen=True, slots=True)
class Redemption:
    """A posted redemption."""

    id: UUID
    member_id: UUID
    membership_id: UUID
    partner_id: UUID
    programme_id: UUID
    points: int
    reference: str | None
    occurred_at: datetime
    posted_at: datetime
    period: date
    missed_period: date | None


async def redeem(
    database: Database, ledger: Ledger, coalition: Coalition, partner: Partner, request: RedeemRequest, now: datetime
) -> Redemption:
    """Spend a member's points at this partner.

    Raises MemberUnknown, CardBlocked, MembershipSuspended, ProgrammeUnknown, InsufficientPoints, NotAllowed,
    InputNotAccepted, IdempotencyKeyReused, OccurredInFuture, OccurredTooLongAgo, PeriodNotOpen; Busy, DatabaseAway.
    """
    key = Key(partner.id, request.idempotency_key, _digest(request))
    try:
        return await _post(database, ledger, coalition, partner, request, key, now)
    except Refused as refused:
        kept = (await ledger.kept([key]))[0]
        if kept is not None and kept.refusal == "IDEMPOTENCY_KEY_REUSED":
            raise IdempotencyKeyReused(key.text) from None
        if kept is None or kept.transaction_id is None:
            raise refused from None
        return await _load(database, kept.transaction_id)


async def _post(
    database: Database, ledger: Ledger, coalition: Coalition, partner: Partner, request: RedeemRequest, key: Key, now: datetime
) -> Redemption:
    check_text(request.idempotency_key, "idempotencyKey", 200)
    if request.reference is not None:
        check_text(request.reference, "reference", 128)
    if not 0 < request.points <= MAX_POINTS:
        raise InputNotAccepted(f"points is {request.points}; it must be at least 1.", "points")
    programme = coalition.programme_by_code(request.programme)
    if programme.custody != "ledger":
        raise NotAllowed(f"{programme.code} is kept by its own partner and is not redeemed here.")
    occurred_at = request.occurred_at or now
    day = coalition.check_occurred(occurred_at, now)
    contract = coalition.contract_of(partner.id, coalition.settlement_currency, day)
    if contract is None:
        raise NotAllowed(f"{partner.name} has no contract in {coalition.settlement_currency} at that date.")
    async with database.reading() as tx:
        membership = await find_membership(tx, partner.id, request.member)
    item = RedemptionItem(
        key=key,
        member_id=membership.member_id,
        membership_id=membership.id,
        programme_id=programme.id,
        partner_id=partner.id,
        contract_id=contract.id,
        occurred_at=occurred_at,
        month=day.replace(day=1),
        day=day,
        points=request.points,
        reference=request.reference,
    )
    answer = (await ledger.redeem([item]))[0]
    refused = refusal_of(answer, item)
    if refused is not None:
        raise refused
    return await _load(database, answer.transaction_id) if answer.replayed else _fresh(answer, item)


def _fresh(answer: Answer, item: RedemptionItem) -> Redemption:
    assert answer.transaction_id is not None
    assert answer.posted_at is not None
    assert answer.period is not None
    return Redemption(
        id=answer.transaction_id,
        member_id=item.member_id,
        membership_id=item.membership_id,
        partner_id=item.partner_id,
        programme_id=item.programme_id,
        points=item.points,
        reference=item.reference,
        occurred_at=item.occurred_at,
        posted_at=answer.posted_at,
        period=answer.period,
        missed_period=item.month if answer.period != item.month else None,
    )


async def _load(database: Database, transaction_id: UUID | None) -> Redemption:
    assert transaction_id is not None
    async with database.reading() as tx:
        return (await redemptions_by_id(tx, [transaction_id]))[transaction_id]


def _digest(request: RedeemRequest) -> bytes:
    return digest("redemption", (
        request.member.kind, request.member.text, request.programme, request.points, request.reference,
        request.occurred_at,
    ))  # fmt: skip


async def redemptions_by_id(tx: Tx, transactions: list[UUID]) -> dict[UUID, Redemption]:
    """Posted redemptions by their ids."""
    rows = await tx.all(sql.redemptions_by_id, buckets=[bucket_of(id) for id in transactions], transactions=transactions)
    return {row["transaction_id"]: _redemption_of(row) for row in rows}


def _redemption_of(row: Row) -> Redemption:
    return Redemption(
        id=row["transaction_id"],
        member_id=row["member_id"],
        membership_id=row["membership_id"],
        partner_id=row["partner_id"],
        programme_id=row["programme_id"],
        points=row["points"],
        reference=row["reference"],
        occurred_at=row["occurred_at"],
        posted_at=row["posted_at"],
        period=row["period"],
        missed_period=row["missed_period"],
    )
