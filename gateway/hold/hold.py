"""Holds: points set aside for a redemption to come; captured whole or in parts, released, or run out by the clock."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from gateway.coalition.catalogue import Coalition, Partner
from gateway.database import Database, Row, Tx
from gateway.ids import bucket_of
from gateway.ledger.items import Capture, Key
from gateway.ledger.items import Hold as HoldItem
from gateway.ledger.post import Ledger
from gateway.ledger.post import sql as ledger_sql
from gateway.ledger.refused import accepted, first_answer, post_once, refusal_of
from gateway.members.lookup import MemberRef, find_membership
from gateway.redemption.redeem import Redemption, check_spending, redemptions_by_id, spending_terms
from gateway.refusals import HoldUnknown, InputNotAccepted, Refused
from gateway.replay import digest
from gateway.statements import load_queries
from gateway.texts import check_text

sql = load_queries(__file__)

LIFETIME = timedelta(minutes=15)
LIFETIME_MAX = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """What a till sends to set points aside; `expires_at` None: LIFETIME from now."""

    idempotency_key: str
    member: MemberRef
    programme: str
    points: int
    reference: str | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """What a till sends to redeem out of a hold; `points` None: all that is left of it."""

    idempotency_key: str
    hold_id: UUID
    points: int | None
    reference: str | None
    occurred_at: datetime | None


@dataclass(frozen=True, slots=True)
class Hold:
    """`points` were set aside; `captured` of them were redeemed and `released` went back.

    `state` is open, captured, released or expired.
    """

    id: UUID
    member_id: UUID
    membership_id: UUID | None
    partner_id: UUID
    programme_id: UUID
    points: int
    captured: int
    released: int
    state: str
    placed_at: datetime
    expires_at: datetime | None
    reference: str | None


async def place(
    database: Database, ledger: Ledger, coalition: Coalition, partner: Partner, request: HoldRequest, now: datetime
) -> Hold:
    """Set points aside for this partner. A hold reserves lots, so its points are honoured beyond their last day.

    Raises what redeeming raises, and InputNotAccepted for a time that is over or more than LIFETIME_MAX away.
    """
    key = Key(partner.id, request.idempotency_key, _hold_digest(request))
    try:
        check_spending(request.idempotency_key, request.points, request.reference)
        expires_at = request.expires_at or now + LIFETIME
        if not now < expires_at <= now + LIFETIME_MAX:
            raise InputNotAccepted(
                f"A hold ends at {expires_at.isoformat()}; it must lie ahead, by {LIFETIME_MAX.days} days at most.", "expiresAt"
            )
        terms = spending_terms(coalition, partner, request.programme, coalition.day_of(now), now)
        async with database.reading() as tx:
            membership = await find_membership(tx, partner.id, request.member)
        item = HoldItem(key, terms, membership.member_id, membership.id, request.points, expires_at, request.reference)
        answer = (await ledger.hold([item]))[0]
    except Refused as refused:
        answer = await first_answer(ledger, key, refused)
    return await _held(database, accepted(answer, key, request.points))


async def capture(
    database: Database, ledger: Ledger, coalition: Coalition, partner: Partner, request: CaptureRequest, now: datetime
) -> tuple[Redemption, Hold]:
    """Redeem some or all of what a hold of this partner set aside; the hold stays open for what is left.

    Raises HoldUnknown, HoldNotOpen, HoldExpired, CaptureExceedsHold, InputNotAccepted, IdempotencyKeyReused,
    OccurredInFuture, OccurredTooLongAgo, PeriodNotOpen; Busy, DatabaseAway.
    """
    key = Key(partner.id, request.idempotency_key, _capture_digest(request))
    try:
        check_spending(request.idempotency_key, request.points, request.reference)
        async with database.reading() as tx:
            hold = await hold_of_partner(tx, partner.id, request.hold_id)
        occurred_at = request.occurred_at or now
        programme = coalition.programmes[hold.programme_id]
        day = coalition.check_occurred(occurred_at, now)
        if day < coalition.day_of(hold.placed_at):
            raise InputNotAccepted("The capture happened before the day of its hold.", "occurredAt")
        terms = spending_terms(coalition, partner, programme.code, day, now)
        item = Capture(key, terms, hold.member_id, hold.id, occurred_at, request.points, request.reference)
        answer = (await ledger.capture([item]))[0]
    except Refused as refused:
        answer = await first_answer(ledger, key, refused)
    transaction_id = accepted(answer, key, request.points or 0)
    async with database.reading() as tx:
        redemption = (await redemptions_by_id(tx, [transaction_id]))[transaction_id]
        assert redemption.hold_id is not None
        return redemption, await hold_of_partner(tx, partner.id, redemption.hold_id)


async def release(
    database: Database, ledger: Ledger, coalition: Coalition, partner: Partner, idempotency_key: str, hold_id: UUID, now: datetime
) -> Hold:
    """Give back what a hold of this partner still sets aside.

    What went back to a lot whose last day is over expires at once.
    Raises HoldUnknown, HoldNotOpen, HoldExpired, InputNotAccepted, IdempotencyKeyReused; DatabaseAway.
    """
    check_text(idempotency_key, "idempotencyKey", 200)
    today = coalition.day_of(now)
    key = Key(partner.id, idempotency_key, digest("release", hold_id))

    async def post() -> UUID:
        async with database.reading() as tx:
            hold = await hold_of_partner(tx, partner.id, hold_id)
        (verdict,) = await database.post(
            ledger_sql.post_release,
            at=now,
            owner=key.owner_id,
            key=key.text,
            digest=key.digest,
            bucket=bucket_of(hold.member_id),
            hold=hold_id,
            today=today,
            month=today.replace(day=1),
        )
        if verdict not in ("post", "replay"):
            raise refusal_of(verdict, key=idempotency_key)
        return hold_id

    return await _held(database, await post_once(ledger, key, 0, post))


async def _held(database: Database, hold_id: UUID) -> Hold:
    async with database.reading() as tx:
        found = await hold_by_id(tx, hold_id)
    assert found is not None
    return found


async def hold_of_partner(tx: Tx, partner_id: UUID, hold_id: UUID) -> Hold:
    """A hold that this partner placed for a membership of its own; those of orders are not its to use. Raises HoldUnknown."""
    found = await hold_by_id(tx, hold_id)
    if found is None or found.partner_id != partner_id or found.membership_id is None:
        raise HoldUnknown
    return found


async def hold_by_id(tx: Tx, hold_id: UUID) -> Hold | None:
    """A hold, None if there is none."""
    row = await tx.one(sql.hold_by_id, bucket=bucket_of(hold_id), hold=hold_id)
    return _hold_of(row) if row else None


def _hold_of(row: Row) -> Hold:
    return Hold(
        id=row["hold_id"],
        member_id=row["member_id"],
        membership_id=row["membership_id"],
        partner_id=row["partner_id"],
        programme_id=row["programme_id"],
        points=row["points"],
        captured=row["captured"],
        released=row["released"],
        state=row["state"],
        placed_at=row["placed_at"],
        expires_at=row["expires_at"],
        reference=row["reference"],
    )


def _hold_digest(request: HoldRequest) -> bytes:
    return digest("hold", (
        request.member.kind, request.member.text, request.programme, request.points, request.reference, request.expires_at,
    ))  # fmt: skip


def _capture_digest(request: CaptureRequest) -> bytes:
    return digest("capture", (request.hold_id, request.points, request.reference, request.occurred_at))
