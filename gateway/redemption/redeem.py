"""Redeeming points at a partner, first-expiring lots first, all or nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from gateway.coalition.catalogue import Coalition, Partner
from gateway.database import Database, Row, Tx, load_queries
from gateway.ids import bucket_of
from gateway.ledger.post import Answer, Key, Ledger
from gateway.ledger.post import Redemption as RedemptionItem
from gateway.ledger.refused import refusal_of
from gateway.members.lookup import MemberRef, Membership, check_text, find_memberships
from gateway.points import MAX_POINTS
from gateway.refusals import BatchTooLarge, IdempotencyKeyReused, InputNotAccepted, NotAllowed, Refused
from gateway.replay import digest

sql = load_queries(__file__)

BATCH_MAX = 1_000


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
    database: Database, ledger: Ledger, coalition: Coalition, partner: Partner, requests: Sequence[RedeemRequest], now: datetime
) -> list[Redemption | Refused]:
    """Spend members' points at this partner, up to BATCH_MAX redemptions, each with its own outcome, in order.

    Refusals: MemberUnknown, CardBlocked, MembershipSuspended, ProgrammeUnknown, InsufficientPoints, NotAllowed,
    InputNotAccepted, IdempotencyKeyReused, OccurredInFuture, OccurredTooLongAgo, PeriodNotOpen.
    Raises BatchTooLarge, and then nothing is posted; Busy, DatabaseAway.
    """
    if len(requests) > BATCH_MAX:
        raise BatchTooLarge(len(requests), BATCH_MAX)
    async with database.reading() as tx:
        memberships = await find_memberships(tx, partner.id, [request.member for request in requests])
    items = [_item(coalition, partner, r, m, now) for r, m in zip(requests, memberships, strict=True)]
    answers = iter(await ledger.redeem([item for item in items if isinstance(item, RedemptionItem)]))
    outcomes = [item if isinstance(item, Refused) else _outcome(next(answers), item) for item in items]
    await _replace_by_kept(ledger, partner, requests, items, outcomes)
    replayed = [outcome for outcome in outcomes if isinstance(outcome, UUID)]
    loaded: dict[UUID, Redemption] = {}
    if replayed:
        async with database.reading() as tx:
            loaded = await redemptions_by_id(tx, replayed)
    return [loaded[outcome] if isinstance(outcome, UUID) else outcome for outcome in outcomes]


def _item(
    coalition: Coalition, partner: Partner, request: RedeemRequest, membership: Membership | Refused, now: datetime
) -> RedemptionItem | Refused:
    try:
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
        if isinstance(membership, Refused):
            raise membership
    except Refused as refused:
        return refused
    return RedemptionItem(
        key=Key(partner.id, request.idempotency_key, _digest(request)),
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


def _outcome(answer: Answer, item: RedemptionItem) -> Redemption | Refused | UUID:
    """The redemption; the id of the first one for a replay, to be loaded; or the refusal."""
    refused = refusal_of(answer, item)
    if refused is not None:
        return refused
    return answer.transaction_id if answer.replayed and answer.transaction_id else _fresh(answer, item)


async def _replace_by_kept(
    ledger: Ledger,
    partner: Partner,
    requests: Sequence[RedeemRequest],
    items: Sequence[RedemptionItem | Refused],
    outcomes: list[Redemption | Refused | UUID],
) -> None:
    """A request refused before it reached the ledger may still be the repetition of one that was accepted."""
    refused = [n for n, item in enumerate(items) if isinstance(item, Refused)]
    if not refused:
        return
    keys = [Key(partner.id, requests[n].idempotency_key, _digest(requests[n])) for n in refused]
    for n, key, kept in zip(refused, keys, await ledger.kept(keys), strict=True):
        if kept is not None and kept.transaction_id is not None:
            outcomes[n] = kept.transaction_id
        elif kept is not None and kept.refusal == "IDEMPOTENCY_KEY_REUSED":
            outcomes[n] = IdempotencyKeyReused(key.text)


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
