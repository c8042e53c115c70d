"""The exchange into a currency that a partner keeps: hold here, credit there, capture here; or release.

Each state is committed before the next step, and the partner is called outside of any transaction with our order's
id as its idempotency key. So a crash at any step resumes, and an answer that was lost is asked for again.
"""

import asyncio
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from uuid import UUID

import structlog

from gateway import ids
from gateway.batching import OneAtATime
from gateway.clock import Clock
from gateway.coalition.catalogue import Catalogue, Coalition
from gateway.coalition.connections import Connections
from gateway.coalition.connector import Credit, PartnerRefused, PartnerSilent, PartnerUnreached
from gateway.conversion.quotes import sql
from gateway.database import Database, Duplicate, Row, Tx
from gateway.ledger.items import Key
from gateway.ledger.post import sql as ledger_sql
from gateway.ledger.refused import refusal_of
from gateway.members.lookup import Membership, check_text, membership_of
from gateway.members.lookup import sql as members_sql
from gateway.refusals import (
    IdempotencyKeyReused,
    NotAllowed,
    PartnerUnavailable,
    QuoteExpired,
    QuoteUnknown,
    QuoteUsed,
    Refused,
    StateConflict,
)
from gateway.replay import digest

RESUME_AFTER = timedelta(seconds=10)
RESUME_AT_ONCE = 100
ASK_SECONDS = 15
ASKING_AT_MOST = timedelta(seconds=30)

log = structlog.get_logger(__name__)


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
    last_error: str | None
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


def _order(row: Row | None) -> Conversion:
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


class Converter:
    """Moves orders from state to state."""

    def __init__(self, database: Database, catalogue: Catalogue, clock: Clock, connections: Connections) -> None:
        self._database, self._catalogue, self._clock, self._connections = database, catalogue, clock, connections
        self._one_at_a_time = OneAtATime()

    async def convert(self, owner_id: UUID, member_id: UUID, request: ConvertRequest) -> Conversion:
        """Use a quote of this member. The answer to a repeated key is the order as it now stands, moved on if need be.

        Raises QuoteUnknown, QuoteExpired, QuoteUsed, InsufficientPoints, PartnerUnavailable, NotAllowed,
        IdempotencyKeyReused, OccurredInFuture, OccurredTooLongAgo; DatabaseAway.
        """
        check_text(request.idempotency_key, "idempotencyKey", 200)
        coalition = await self._catalogue.current()
        content = digest("conversion", (member_id, request.quote_id, request.occurred_at))
        async with self._one_at_a_time(owner_id, request.idempotency_key):
            try:
                order = await self._find_or_open(coalition, owner_id, member_id, request, content)
            except Duplicate:
                # Another process took the key in this very moment; what it stored is found now.
                order = await self._find_or_open(coalition, owner_id, member_id, request, content)
            except IdempotencyKeyReused:
                async with self._database.reading() as tx:
                    await _check_kept(tx, owner_id, request, content)  # another process was told no in this very moment
                raise
            except NotHeld as no:
                bucket = ids.bucket_of(request.quote_id)
                await self._database.post(
                    sql.keep_refusal,
                    at=self._clock.now(),
                    owner=owner_id,
                    key=request.idempotency_key,
                    digest=content,
                    bucket=bucket,
                    refusal=no.verdict,
                )
                raise no.refusal from None
            return await self._advance(order, coalition)

    async def resume(self) -> int:
        """Move on every order that was left under way; answers how many there were."""
        coalition = await self._catalogue.current()
        async with self._database.reading() as tx:
            rows = await tx.all(sql.orders_under_way, before=self._clock.now() - RESUME_AFTER, most=RESUME_AT_ONCE)
        for row in rows:
            order = _order(row)
            try:
                await self._advance(order, coalition)
            except Refused as left:
                log.warning("conversion left under way", conversion=str(order.id), reason=left.message)
            except Exception:
                log.exception("conversion left under way", conversion=str(order.id))
        return len(rows)

    async def _find_or_open(
        self, coalition: Coalition, owner_id: UUID, member_id: UUID, request: ConvertRequest, content: bytes
    ) -> Conversion:
        """The order that a key asked for: the one that is stored, held again if it was released, or a new one."""
        async with self._database.transaction() as tx:
            row = await tx.one(sql.order_by_key, owner_id=owner_id, key=request.idempotency_key)
            if row is None:
                await _check_kept(tx, owner_id, request, content)
                return _order(await self._open(tx, coalition, owner_id, member_id, request, content))
            if row["digest"] != content:
                raise IdempotencyKeyReused(request.idempotency_key)
            if row["state"] == "released":
                key = Key(owner_id, request.idempotency_key, content)
                await self._hold_again(tx, coalition, _order(row), request.quote_id, key)
            return await conversion_by_id(tx, row["conversion_id"])

    async def _open(
        self, tx: Tx, coalition: Coalition, owner_id: UUID, member_id: UUID, request: ConvertRequest, content: bytes
    ) -> Row | None:
        """Store a new order with its points held, or refuse and hold nothing."""
        now = self._clock.now()
        bucket = ids.bucket_of(request.quote_id)
        quote = await tx.one(sql.quote_for_update, bucket=bucket, quote_id=request.quote_id)
        if quote is None or quote["member_id"] != member_id:
            raise QuoteUnknown
        if quote["used"]:
            # The lock may have waited for another process that used the quote under this very key.
            stored = await tx.one(sql.order_by_key, owner_id=owner_id, key=request.idempotency_key)
            if stored is not None and stored["digest"] == content:
                return stored
            raise QuoteUsed
        if quote["expires_at"] <= now:
            raise QuoteExpired(quote["expires_at"].isoformat())
        occurred_at = request.occurred_at or now
        day = coalition.check_occurred(occurred_at, now)
        partner_id = coalition.programmes[quote["target_id"]].issuer_id
        assert partner_id is not None
        contract = coalition.contract_of(partner_id, coalition.settlement_currency, day)
        if contract is None:
            raise NotAllowed(f"{coalition.partners[partner_id].name} has no contract at that date.")
        account = await _airline_membership(tx, bucket, member_id, partner_id)
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

    async def _hold_again(self, tx: Tx, coalition: Coalition, order: Conversion, quote_id: UUID, key: Key) -> None:
        """An order that never reached the partner may be tried again as long as its quote holds."""
        locked = await tx.one(sql.order_for_update, bucket=order.bucket, conversion_id=order.id)
        if locked is None or locked["state"] != "released":
            return
        now, hold_id = self._clock.now(), ids.new_id_in(order.bucket)
        quote = await tx.one(sql.quote_by_id, bucket=order.bucket, quote_id=quote_id)
        assert quote is not None
        if quote["expires_at"] <= now:
            raise QuoteExpired(quote["expires_at"].isoformat())
        day = coalition.day_of(order.occurred_at)
        await _place_hold(tx, now, key, order.id, hold_id, order.member_id, order.source_id, order.partner_id, day,
                          coalition.day_of(now), order.take)  # fmt: skip
        await tx.run(sql.hold_again, bucket=order.bucket, conversion_id=order.id, hold_id=hold_id, updated_at=now)

    async def _advance(self, order: Conversion, coalition: Coalition) -> Conversion:
        """Take an order as far as it goes; completed is the end of it."""
        if order.state == "held":
            await self._credit(order, coalition)
        if order.state != "completed":
            await self._capture(order, coalition)
        async with self._database.reading() as tx:
            order = await conversion_by_id(tx, order.id)
        if order.state == "refused":
            raise NotAllowed(f"{coalition.partners[order.partner_id].name} refused the credit: {order.last_error}")
        if order.state != "completed":
            raise self._undecided(order, coalition)
        return order

    def _undecided(self, order: Conversion, coalition: Coalition) -> StateConflict:
        name = coalition.partners[order.partner_id].name
        return StateConflict(
            f"{name} has not answered yet; the points are held until it does. Ask again with the same idempotency key."
        )

    async def _credit(self, order: Conversion, coalition: Coalition) -> None:
        """Ask the partner to credit, and store what it answers.

        That it is asked is stored first. Once an answer was lost the order stays held until the partner says that it
        credited: neither a refusal nor a broken line tells what the lost question did.
        """
        async with self._database.transaction() as tx:
            now = self._clock.now()
            locked = await tx.one(sql.order_for_update, bucket=order.bucket, conversion_id=order.id)
            assert locked is not None
            if locked["state"] != "held":
                return
            if locked["asking_until"] is not None and locked["asking_until"] > now:
                raise self._undecided(order, coalition)
            doubted = locked["in_doubt"]
            await tx.run(sql.begin_asking, bucket=order.bucket, conversion_id=order.id, asking_until=now + ASKING_AT_MOST)
            row = await tx.one(members_sql.membership_by_id, bucket=order.bucket, membership=order.membership_id)
        assert row is not None
        partner = coalition.partners[order.partner_id]
        try:
            async with asyncio.timeout(ASK_SECONDS):
                credit = await self._ask(order, membership_of(row))
        except PartnerUnreached as silent:
            if doubted:
                await self._settle(order, coalition, "held", True, None, str(silent))
                raise self._undecided(order, coalition) from silent
            await self._settle(order, coalition, "released", False, None, str(silent))
            raise PartnerUnavailable(partner.name) from silent
        except (PartnerSilent, TimeoutError) as silent:
            await self._settle(order, coalition, "held", True, None, str(silent))
            raise self._undecided(order, coalition) from silent
        except PartnerRefused as no:
            if doubted:
                log.error("a partner refuses what it may have credited", conversion=str(order.id), reason=str(no))
                await self._settle(order, coalition, "held", True, None, f"refused after a lost answer: {no}")
                raise self._undecided(order, coalition) from no
            await self._settle(order, coalition, "refused", False, None, str(no))
            return
        await self._settle(order, coalition, "credited", False, credit.reference, None)

    async def _settle(
        self, order: Conversion, coalition: Coalition, state: str, in_doubt: bool, reference: str | None, error: str | None
    ) -> None:
        """Store the outcome of asking; released and refused orders give their points back."""
        async with self._database.transaction() as tx:
            locked = await tx.one(sql.order_for_update, bucket=order.bucket, conversion_id=order.id)
            if locked is None or locked["state"] != "held":
                log.error("an order moved on while it was asked for", conversion=str(order.id), answer=state)
                return
            if state in ("released", "refused"):
                now = self._clock.now()
                today = coalition.day_of(now)
                await tx.post(
                    sql.release_hold, at=now, bucket=order.bucket, hold=order.hold_id, today=today, month=today.replace(day=1)
                )
            await self._move(tx, order, state, in_doubt, reference, error)

    async def _ask(self, order: Conversion, account: Membership) -> Credit:
        connector = await self._connections.of(order.partner_id)
        if connector is None:
            raise PartnerUnreached("No connection to this partner's system is configured.")
        return await connector.credit(account.external_id, order.give, ids.show("cnv", order.id))

    async def _capture(self, order: Conversion, coalition: Coalition) -> None:
        async with self._database.transaction() as tx:
            locked = await tx.one(sql.order_for_update, bucket=order.bucket, conversion_id=order.id)
            if locked is None or locked["state"] != "credited":
                return
            (posted,) = await tx.post(
                sql.post_conversion,
                at=self._clock.now(),
                bucket=order.bucket,
                conversion=order.id,
                occurred=order.occurred_at,
                month=coalition.day_of(order.occurred_at).replace(day=1),
            )
            if not posted:
                raise StateConflict("The hold of this order is not open any more; an operator has to look at it.")
            await self._move(tx, order, "completed", False, None, None)

    async def _move(
        self, tx: Tx, order: Conversion, state: str, in_doubt: bool, reference: str | None, error: str | None
    ) -> None:
        await tx.run(
            sql.move_order,
            bucket=order.bucket,
            conversion_id=order.id,
            state=state,
            in_doubt=in_doubt,
            reference=reference,
            error=error,
            updated_at=self._clock.now(),
        )


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


async def _check_kept(tx: Tx, owner_id: UUID, request: ConvertRequest, content: bytes) -> None:
    """Raises what was refused under this key before, and IdempotencyKeyReused where it asked for something else."""
    kept = await tx.one(ledger_sql.kept_answers, owners=[owner_id], keys=[request.idempotency_key])
    if kept is None:
        return
    quote = await tx.one(sql.quote_by_id, bucket=ids.bucket_of(request.quote_id), quote_id=request.quote_id)
    if kept["digest"] != content or kept["refusal"] is None or quote is None:
        raise IdempotencyKeyReused(request.idempotency_key)
    raise _refusal(kept["refusal"], quote["take"])


async def _airline_membership(tx: Tx, bucket: int, member_id: UUID, partner_id: UUID) -> Membership:
    """The account that the partner credits: the member's membership there. Raises NotAllowed."""
    row = await tx.one(members_sql.membership_at, bucket=bucket, member=member_id, partner=partner_id)
    if row is None:
        raise NotAllowed("The member has not joined the partner that keeps the target programme.").at("member")
    return membership_of(row)


async def conversion_by_id(tx: Tx, conversion_id: UUID) -> Conversion:
    """An order that exists."""
    row = await tx.one(sql.order_by_id, bucket=ids.bucket_of(conversion_id), conversion_id=conversion_id)
    return _order(row)
