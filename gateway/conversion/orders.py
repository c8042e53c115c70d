"""Orders of the exchange: a quote that is used becomes an order with its points held, once for a key."""

from dataclasses import dataclass, fields
from datetime import date, datetime
from uuid import UUID

from gateway import ids
from gateway.coalition.catalogue import CLOCK_SKEW_SECONDS, Coalition
from gateway.conversion.quotes import QUOTE_LIFETIME, sql
from gateway.database import LostRace, Row, Tx
from gateway.ledger.items import Key
from gateway.ledger.post import sql as ledger_sql
from gateway.ledger.refused import refusal_of
from gateway.members.lookup import Membership, check_active, membership_of
from gateway.members.lookup import sql as members_sql
from gateway.refusals import (
    IdempotencyKeyReused,
    InputNotAccepted,
    MembershipSuspended,
    NotAllowed,
    QuoteExpired,
    QuoteUnknown,
    QuoteUsed,
    Refused,
)


@dataclass(frozen=True, slots=True)
class ConvertRequest:
    """A quote to use; `occurred_at` None: now."""

    idempotency_key: str
    quote_id: UUID
    occurred_at: datetime | None


@dataclass(frozen=True, slots=True)
class Conversion:
    """An order. `state` is held, credited, completed, released or refused; the exchange is done when it is completed.

    `in_doubt` says that a question to the partner was begun whose answer is not known."""

    id: UUID
    hold_id: UUID
    member_id: UUID
    membership_id: UUID
    partner_id: UUID
    source_id: UUID
    target_id: UUID
    take: int
    give: int
    state: str
    partner_reference: str | None
    occurred_at: datetime
    in_doubt: bool
    asking_until: datetime | None

    @property
    def bucket(self) -> int:
        return ids.bucket_of(self.id)

    @classmethod
    def of(cls, row: Row | None) -> "Conversion | None":
        """The order in a row; None for no row."""
        return cls(**{name: row[column] for name, column in _COLUMNS.items()}) if row is not None else None


_COLUMNS = {f.name: "conversion_id" if f.name == "id" else f.name for f in fields(Conversion)}


def order_of(row: Row | None) -> Conversion:
    """The order in a row that is there."""
    order = Conversion.of(row)
    assert order is not None
    return order


class NotHeld(Exception):
    """The ledger refused to set the points of an order aside: `verdict` is its code, `refusal` what the caller is told."""

    def __init__(self, verdict: str, points: int) -> None:
        super().__init__(verdict)
        self.verdict, self.refusal = verdict, _refusal(verdict, points)


def _refusal(verdict: str, points: int) -> Refused:
    refusal = refusal_of(verdict, points=points)
    return refusal.at("quote") if refusal.path == ("points",) else refusal


async def orders_by_id(tx: Tx, conversions: list[UUID]) -> list[Conversion]:
    """Orders by their ids; unknown ones are left out."""
    buckets = [ids.bucket_of(id) for id in conversions]
    return [order_of(row) for row in await tx.all(sql.orders_by_id, buckets=buckets, conversions=conversions)]


async def find_or_open(
    tx: Tx, now: datetime, coalition: Coalition, owner_id: UUID, member_id: UUID, request: ConvertRequest, content: bytes,
    refusal: Refused | None,
) -> Conversion:  # fmt: skip
    """The order that a key asked for: the one that is stored, held again if it was released, or a new one; none is begun where
    there is a refusal, which is raised.

    Raises NotHeld, LostRace, and what `Converter.convert` does.
    """
    row = await tx.one(sql.order_by_key, owner_id=owner_id, key=request.idempotency_key)
    if row is None:
        await check_kept(tx, owner_id, request, content)
        if refusal is not None:
            raise refusal
        return order_of(await _open(tx, now, coalition, owner_id, member_id, request, content))
    if row["digest"] != content:
        raise IdempotencyKeyReused(request.idempotency_key)
    if row["state"] == "released":
        if refusal is not None:
            raise refusal
        key = Key(owner_id, request.idempotency_key, content)
        await _hold_again(tx, now, coalition, order_of(row), request.quote_id, key)
    return await conversion_by_id(tx, row["conversion_id"])


def _moment(said: datetime | None, priced_at: datetime, now: datetime) -> datetime:
    """When an exchange occurred: at the moment whose rate was quoted, or while that quote served; else its rate would be of one
    time and its contract of another. A till's clock may differ by CLOCK_SKEW_SECONDS. Raises InputNotAccepted."""
    occurred_at = said or now
    within = min(max(occurred_at, priced_at), priced_at + QUOTE_LIFETIME)
    if abs(occurred_at - within).total_seconds() > CLOCK_SKEW_SECONDS:
        told = f"The rate is that of {priced_at.isoformat()}: what it is used for occurred then, or in the five minutes after it."
        raise InputNotAccepted(told, "occurredAt")
    return within


async def _open(
    tx: Tx, now: datetime, coalition: Coalition, owner_id: UUID, member_id: UUID, request: ConvertRequest, content: bytes
) -> Row | None:
    """Store a new order with its points held, or refuse and hold nothing."""
    bucket = ids.bucket_of(request.quote_id)
    quote = await tx.one(sql.quote_for_update, bucket=bucket, quote_id=request.quote_id)
    if quote is None or quote["member_id"] != member_id:
        raise QuoteUnknown
    partner_id = coalition.programmes[quote["target_id"]].issuer_id
    assert partner_id is not None
    if owner_id not in (member_id, partner_id):  # a quote serves its member, and the partner whose currency it is
        raise QuoteUnknown
    account = await target_membership(tx, coalition, member_id, partner_id)
    if quote["used"]:
        # The lock may have waited for another process that used the quote under this very key.
        stored = await tx.one(sql.order_by_key, owner_id=owner_id, key=request.idempotency_key)
        if stored is not None and stored["digest"] == content:
            return stored
        raise QuoteUsed
    if quote["expires_at"] <= now:
        raise QuoteExpired(quote["expires_at"].isoformat())
    occurred_at = _moment(request.occurred_at, quote["priced_at"], now)
    day = coalition.check_occurred(occurred_at, now)
    contract = coalition.contract_of(partner_id, coalition.settlement_currency, day)
    if contract is None:
        raise NotAllowed(f"{coalition.partners[partner_id].name} has no contract at that date.")
    hold_id, conversion_id = ids.new_id_in(bucket), ids.new_id_in(bucket)
    await tx.run(sql.use_quote, bucket=bucket, quote_id=request.quote_id)
    key = Key(owner_id, request.idempotency_key, content)
    await _place_hold(tx, now, key, conversion_id, hold_id, member_id, quote["source_id"], partner_id, day,
                      coalition.day_of(now), quote["take"])  # fmt: skip
    await tx.run(
        sql.store_order,
        bucket=bucket,
        conversion_id=conversion_id,
        owner_id=owner_id,
        key=request.idempotency_key,
        digest=content,
        quote_id=request.quote_id,
        hold_id=hold_id,
        member_id=member_id,
        membership_id=account.id,
        partner_id=partner_id,
        contract_id=contract.id,
        source_id=quote["source_id"],
        target_id=quote["target_id"],
        take=quote["take"],
        give=quote["give"],
        occurred_at=occurred_at,
        updated_at=now,
    )
    return await tx.one(sql.order_by_id, bucket=bucket, conversion_id=conversion_id)


async def _hold_again(tx: Tx, now: datetime, coalition: Coalition, order: Conversion, quote_id: UUID, key: Key) -> None:
    """An order that never reached the partner may be tried again as long as its quote holds."""
    locked = await tx.one(sql.order_for_update, bucket=order.bucket, conversion_id=order.id)
    if locked is None or locked["state"] != "released":
        return
    hold_id = ids.new_id_in(order.bucket)
    quote = await tx.one(sql.quote_by_id, bucket=order.bucket, quote_id=quote_id)
    assert quote is not None
    if quote["expires_at"] <= now:
        raise QuoteExpired(quote["expires_at"].isoformat())
    await target_membership(tx, coalition, order.member_id, order.partner_id)
    day = coalition.day_of(order.occurred_at)
    await _place_hold(tx, now, key, order.id, hold_id, order.member_id, order.source_id, order.partner_id, day,
                      coalition.day_of(now), order.take)  # fmt: skip
    await tx.run(sql.hold_again, bucket=order.bucket, conversion_id=order.id, hold_id=hold_id, updated_at=now)


async def _place_hold(
    tx: Tx, now: datetime, key: Key, conversion_id: UUID, hold_id: UUID, member_id: UUID, programme_id: UUID,
    partner_id: UUID, day: date, today: date, points: int,
) -> None:  # fmt: skip
    (verdict,) = await tx.post(
        sql.place_hold,
        at=now,
        owner=key.owner_id,
        key=key.text,
        digest=key.digest,
        conversion=conversion_id,
        bucket=ids.bucket_of(hold_id),
        hold=hold_id,
        member=member_id,
        programme=programme_id,
        partner=partner_id,
        day=day,
        today=today,
        points=points,
    )
    if verdict == "IDEMPOTENCY_KEY_REUSED":
        raise IdempotencyKeyReused(key.text)
    if verdict != "post":
        raise NotHeld(verdict, points)


async def check_kept(tx: Tx, owner_id: UUID, request: ConvertRequest, content: bytes) -> None:
    """Raises what was refused under this key before, IdempotencyKeyReused where it asked for something else, and LostRace where
    its order has been stored since it was looked for."""
    kept = await tx.one(ledger_sql.kept_answers, owners=[owner_id], keys=[request.idempotency_key])
    if kept is None:
        return
    if kept["digest"] != content:
        raise IdempotencyKeyReused(request.idempotency_key)
    if kept["refusal"] is None:
        raise LostRace("Another process has stored the order of this key.")
    quote = await tx.one(sql.quote_by_id, bucket=ids.bucket_of(request.quote_id), quote_id=request.quote_id)
    assert quote is not None  # it is what the digest is of
    raise _refusal(kept["refusal"], quote["take"])


async def target_membership(tx: Tx, coalition: Coalition, member_id: UUID, partner_id: UUID) -> Membership:
    """The account that the partner credits: the member's membership there, while neither of them is suspended.

    Raises NotAllowed, MembershipSuspended.
    """
    partner = coalition.partners[partner_id]
    if partner.status != "active":
        raise NotAllowed(f"{partner.name} is suspended.").at("to")
    row = await tx.one(members_sql.membership_at, bucket=ids.bucket_of(member_id), member=member_id, partner=partner_id)
    if row is None:
        raise NotAllowed(f"The member has not joined {partner.name}, which keeps the target programme.").at("to")
    if row["status"] == "suspended":
        raise MembershipSuspended().at("to")
    await check_active(tx, member_id)
    return membership_of(row)


async def conversion_by_id(tx: Tx, conversion_id: UUID) -> Conversion:
    """An order that exists."""
    row = await tx.one(sql.order_by_id, bucket=ids.bucket_of(conversion_id), conversion_id=conversion_id)
    return order_of(row)
