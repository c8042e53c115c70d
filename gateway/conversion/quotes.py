"""Quotes: a rate locked for one member for a few minutes."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from gateway import ids
from gateway.coalition.catalogue import Coalition, Rate
from gateway.database import Row, Tx
from gateway.members.lookup import Membership
from gateway.points import MAX_POINTS
from gateway.refusals import BelowMinimum, IdempotencyKeyReused, InputNotAccepted, NotInIncrement, RateNotOffered
from gateway.statements import load_queries
from gateway.texts import check_text

sql = load_queries(__file__)

QUOTE_LIFETIME = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class QuoteRequest:
    """`take` whole points of `source`; `at` is the moment whose rate is asked for, by the caller or because nothing was said;
    `key` None: not idempotent."""

    source: str
    target: str
    take: int
    at: datetime
    key: str | None = None
    at_was_said: bool = False


@dataclass(frozen=True, slots=True)
class Quote:
    """`take` of the source for `give` of the target, until `expires_at`: at the rate of the moment `priced_at`, which gives
    `rate_give` for every `rate_take`."""

    id: UUID
    member_id: UUID
    membership_id: UUID
    rate_id: UUID
    source_id: UUID
    target_id: UUID
    take: int
    give: int
    priced_at: datetime
    expires_at: datetime
    used: bool
    rate_take: int
    rate_give: int


async def quote(
    tx: Tx, coalition: Coalition, owner_id: UUID | None, membership: Membership, request: QuoteRequest, now: datetime
) -> Quote:
    """Lock the rate in force for `QUOTE_LIFETIME`, for a key that has no quote yet.

    `give` is rounded down to whole points of the target, in the exchange account's favour.
    Raises ProgrammeUnknown, RateNotOffered, BelowMinimum, NotInIncrement, InputNotAccepted, OccurredInFuture, OccurredTooLongAgo.
    """
    rate, give = _offered(coalition, request, now)
    bucket = ids.bucket_of(membership.member_id)
    made = Quote(
        id=ids.new_id_in(bucket),
        member_id=membership.member_id,
        membership_id=membership.id,
        rate_id=rate.id,
        source_id=rate.source_id,
        target_id=rate.target_id,
        take=request.take,
        give=give,
        priced_at=request.at,
        expires_at=now + QUOTE_LIFETIME,
        used=False,
        rate_take=rate.take,
        rate_give=rate.give,
    )
    await tx.run(
        sql.store_quote,
        bucket=bucket,
        quote_id=made.id,
        member_id=made.member_id,
        membership_id=made.membership_id,
        rate_id=made.rate_id,
        source_id=made.source_id,
        target_id=made.target_id,
        take=made.take,
        give=made.give,
        quoted_at=now,
        priced_at=made.priced_at,
        expires_at=made.expires_at,
        owner=owner_id,
        key=request.key,
    )
    return made


def _offered(coalition: Coalition, request: QuoteRequest, now: datetime) -> tuple[Rate, int]:
    """The rate asked for, and what it gives."""
    source, target = coalition.programme_by_code(request.source, "from"), coalition.programme_by_code(request.target, "to")
    coalition.check_occurred(request.at, now, "at")
    rate = coalition.rate_of(source.id, target.id, request.at)
    if rate is None:
        raise RateNotOffered(source.code, target.code)
    if not 0 < request.take <= MAX_POINTS:
        raise InputNotAccepted(f"take is {request.take}; it must be at least 1.", "take")
    if request.take < rate.minimum:
        raise BelowMinimum(rate.minimum)
    if request.take % rate.increment:
        raise NotInIncrement(rate.increment)
    give = request.take * rate.give // rate.take
    if not 0 < give <= MAX_POINTS:
        raise InputNotAccepted(f"{request.take} {source.code} come to {give} {target.code}, which cannot be given.", "take")
    return rate, give


async def kept_quote(
    tx: Tx, coalition: Coalition, owner_id: UUID | None, member_id: UUID, request: QuoteRequest
) -> Quote | None:
    """The quote that a key got before. Raises IdempotencyKeyReused when it was for something else, InputNotAccepted,
    ProgrammeUnknown."""
    if request.key is None:
        return None
    check_text(request.key, "idempotencyKey", 200)
    row = await tx.one(sql.quote_by_key, owner=owner_id, key=request.key)
    if row is None:
        return None
    known = quote_of(row)
    source, target = coalition.programme_by_code(request.source, "from"), coalition.programme_by_code(request.target, "to")
    # Not by the rate of that moment: one may have been published since that began before it.
    moved = known.priced_at != (request.at if request.at_was_said else row["quoted_at"])
    if moved or (known.member_id, known.source_id, known.target_id, known.take) != (
        member_id, source.id, target.id, request.take,
    ):  # fmt: skip
        raise IdempotencyKeyReused(request.key)
    return known


async def quote_by_id(tx: Tx, quote_id: UUID) -> Quote | None:
    """A quote, whoever it is for."""
    row = await tx.one(sql.quote_by_id, bucket=ids.bucket_of(quote_id), quote_id=quote_id)
    return quote_of(row) if row else None


def quote_of(row: Row) -> Quote:
    return Quote(
        row["quote_id"], row["member_id"], row["membership_id"], row["rate_id"], row["source_id"], row["target_id"], row["take"],
        row["give"], row["priced_at"], row["expires_at"], row["used"], row["rate_take"], row["rate_give"],
    )  # fmt: skip
