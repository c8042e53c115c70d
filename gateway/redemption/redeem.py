"""Redeeming points at a partner, first-expiring lots first, all or nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from gateway.coalition.catalogue import Coalition, Partner
from gateway.database import Database, Row, Tx
from gateway.ids import bucket_of
from gateway.ledger.items import Answer, Key, Terms
from gateway.ledger.items import Redemption as RedemptionItem
from gateway.ledger.post import Ledger
from gateway.ledger.refused import first_answers, keys_of_refused, refusal_of
from gateway.members.lookup import MemberLookup, MemberRef, Membership
from gateway.points import MAX_POINTS
from gateway.refusals import BatchTooLarge, InputNotAccepted, NotAllowed, Refused
from gateway.replay import digest
from gateway.statements import load_queries
from gateway.texts import check_text

sql = load_queries(__file__)

BATCH_MAX = 1_000
REFERENCE_MAX = 128


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
    """A posted redemption; `restored` of its points were given back since. `hold_id`: what it was captured from."""

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
    hold_id: UUID | None = None
    restored: int = 0


async def redeem(
    database: Database, members: MemberLookup, ledger: Ledger, coalition: Coalition, partner: Partner,
    requests: Sequence[RedeemRequest], now: datetime,
) -> list[Redemption | Refused]:  # fmt: skip
    """Spend members' points at this partner, up to BATCH_MAX redemptions, each with its own outcome, in order.

    Refusals: MemberUnknown, CardBlocked, MembershipSuspended, ProgrammeUnknown, InsufficientPoints,
    TransactionLimitExceeded, DailyLimitReached, NotAllowed, InputNotAccepted, IdempotencyKeyReused,
    OccurredInFuture, OccurredTooLongAgo, PeriodNotOpen.
    Raises BatchTooLarge, and then nothing is posted; Busy, DatabaseAway.
    """
    if len(requests) > BATCH_MAX:
        raise BatchTooLarge(len(requests), BATCH_MAX)
    memberships = await members.find(partner.id, [request.member for request in requests])
    keys = [Key(partner.id, request.idempotency_key, _digest(request)) for request in requests]
    items = [_item(coalition, partner, r, m, k, now) for r, m, k in zip(requests, memberships, keys, strict=True)]
    first, later = keys_of_refused(keys, items)
    again = await first_answers(ledger, first)
    posted = iter(await ledger.redeem([item for item in items if isinstance(item, RedemptionItem)]))
    again |= await first_answers(ledger, later)
    outcomes: list[Redemption | Refused | UUID] = []
    for n, item in enumerate(items):
        answer = again.get(n) if isinstance(item, Refused) else next(posted)
        if answer is None:
            assert isinstance(item, Refused)
            outcomes.append(item)
        else:
            outcomes.append(_outcome(answer, requests[n], item))
    replayed = [outcome for outcome in outcomes if isinstance(outcome, UUID)]
    loaded: dict[UUID, Redemption] = {}
    if replayed:
        async with database.reading() as tx:
            loaded = await redemptions_by_id(tx, replayed)
    return [loaded[outcome] if isinstance(outcome, UUID) else outcome for outcome in outcomes]


def spending_terms(coalition: Coalition, partner: Partner, programme_code: str, day: date, now: datetime) -> Terms:
    """The terms under which points are taken from members at a partner on a day. Raises ProgrammeUnknown, NotAllowed."""
    programme = coalition.programme_by_code(programme_code)
    if programme.custody != "ledger":
        raise NotAllowed(f"{programme.code} is kept by its own partner and is not redeemed here.").at("programme")
    contract = coalition.contract_of(partner.id, coalition.settlement_currency, day)
    if contract is None:
        raise NotAllowed(f"{partner.name} has no contract in {coalition.settlement_currency} at that date.").at("occurredAt")
    return Terms(
        partner_id=partner.id,
        programme_id=programme.id,
        contract_id=contract.id,
        currency=contract.currency,
        month=day.replace(day=1),
        issue_price=contract.issue_price,
        day=day,
        today=coalition.day_of(now),
    )


def check_spending(idempotency_key: str, points: int | None, reference: str | None) -> None:
    """What every request that takes points must hold to. Raises InputNotAccepted."""
    check_text(idempotency_key, "idempotencyKey", 200)
    if reference is not None:
        check_text(reference, "reference", REFERENCE_MAX)
    if points is not None and not 0 < points <= MAX_POINTS:
        raise InputNotAccepted(f"points is {points}; it must be at least 1.", "points")


def _item(
    coalition: Coalition, partner: Partner, request: RedeemRequest, membership: Membership | Refused, key: Key, now: datetime
) -> RedemptionItem | Refused:
    try:
        check_spending(request.idempotency_key, request.points, request.reference)
        occurred_at = request.occurred_at or now
        day = coalition.check_occurred(occurred_at, now)
        terms = spending_terms(coalition, partner, request.programme, day, now)
        if isinstance(membership, Refused):
            raise membership
    except Refused as refused:
        return refused
    return RedemptionItem(key, terms, membership.member_id, membership.id, occurred_at, request.points, request.reference)


def _outcome(answer: Answer, request: RedeemRequest, item: RedemptionItem | Refused) -> Redemption | Refused | UUID:
    """The redemption; the id of the first one for a replay, to be loaded; or the refusal."""
    if answer.refusal is not None:
        month = item.terms.month if isinstance(item, RedemptionItem) else None
        return refusal_of(answer.refusal, key=request.idempotency_key, points=request.points, month=month)
    assert answer.transaction_id is not None
    if answer.replayed:
        return answer.transaction_id
    assert isinstance(item, RedemptionItem)
    assert answer.posted_at is not None
    assert answer.period is not None
    return Redemption(
        id=answer.transaction_id,
        member_id=item.member_id,
        membership_id=item.membership_id,
        partner_id=item.terms.partner_id,
        programme_id=item.terms.programme_id,
        points=item.points,
        reference=item.reference,
        occurred_at=item.occurred_at,
        posted_at=answer.posted_at,
        period=answer.period,
        missed_period=item.terms.month if answer.period != item.terms.month else None,
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
        hold_id=row["hold_id"],
        restored=row["restored"],
    )
