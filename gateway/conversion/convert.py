"""The exchange into a currency that a partner keeps: hold here, credit there, capture here; or release.

Each state is committed before the next step, and the partner is called outside of any transaction with our order's
id as its idempotency key. So a crash at any step resumes, and an answer that was lost is asked for again.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from time import monotonic
from uuid import UUID

import structlog

from gateway import ids
from gateway.clock import Clock
from gateway.coalition.catalogue import Catalogue, Coalition
from gateway.coalition.connections import Connections
from gateway.coalition.connector import Credit, PartnerRefused, PartnerSilent, PartnerUnreached
from gateway.conversion.orders import (
    Conversion,
    ConvertRequest,
    NotHeld,
    check_kept,
    conversion_by_id,
    find_or_open,
    order_of,
    target_membership,
)
from gateway.conversion.quotes import sql
from gateway.database import Database, LostRace, Tx
from gateway.ledger.post import Ledger
from gateway.members.lookup import Membership, membership_of
from gateway.members.lookup import sql as members_sql
from gateway.refusals import (
    IdempotencyKeyReused,
    NotAllowed,
    PartnerUnavailable,
    Refused,
    StateConflict,
)
from gateway.replay import digest
from gateway.texts import check_text
from gateway.turns import OneAtATime

RESUME_AFTER = timedelta(seconds=10)
RESUME_OF_ONE = 100
RESUME_SECONDS = 10
PARTNERS_AT_ONCE = 4
ASK_SECONDS = 15
ASKING_AT_MOST = timedelta(seconds=30)
HOLD_IS_CLOSED = "The hold of this order is not open any more; an operator has to look at it."

log = structlog.get_logger(__name__)


class Converter:
    """Moves orders from state to state."""

    def __init__(
        self, database: Database, catalogue: Catalogue, ledger: Ledger, clock: Clock, connections: Connections
    ) -> None:
        self._database, self._catalogue, self._ledger, self._clock = database, catalogue, ledger, clock
        self._connections = connections
        self._one_at_a_time = OneAtATime()
        self._is_ending = False

    def end(self) -> None:
        """Leave to others what was left under way."""
        self._is_ending = True

    async def convert(
        self, owner_id: UUID, member_id: UUID, request: ConvertRequest, refusal: Refused | None = None
    ) -> Conversion:
        """Use a quote of this member. The answer to a repeated key is the order as it now stands, moved on if need be; a refusal,
        where there is one, that to any other.

        Raises that, QuoteUnknown, QuoteExpired, QuoteUsed, InsufficientPoints, PartnerUnavailable, NotAllowed, StateConflict,
        MembershipSuspended, InputNotAccepted, IdempotencyKeyReused, OccurredInFuture, OccurredTooLongAgo; Busy,
        DatabaseAway, Stuck.
        """
        check_text(request.idempotency_key, "idempotencyKey", 200)
        coalition = await self._catalogue.current()
        content = digest("conversion", (member_id, request.quote_id, request.occurred_at))
        async with self._one_at_a_time(owner_id, request.idempotency_key):
            async with self._ledger.claiming(owner_id, request.idempotency_key):
                order = await self._find_or_open(owner_id, member_id, request, content, coalition, refusal)
            return await self._advance(order, coalition)

    async def _find_or_open(
        self, owner_id: UUID, member_id: UUID, request: ConvertRequest, content: bytes, coalition: Coalition,
        refusal: Refused | None,
    ) -> Conversion:  # fmt: skip
        """The order of a key; what the ledger refuses is the answer to that key from now on. Raises what `convert` does."""
        try:
            return await self._database.decided(
                lambda tx: find_or_open(tx, self._clock.now(), coalition, owner_id, member_id, request, content, refusal)
            )
        except IdempotencyKeyReused:
            async with self._database.reading() as tx:
                await check_kept(tx, owner_id, request, content)  # another process was told no in this very moment
            raise
        except NotHeld as no:
            await self._database.post(
                sql.keep_refusal,
                at=self._clock.now(),
                owner=owner_id,
                key=request.idempotency_key,
                digest=content,
                bucket=ids.bucket_of(request.quote_id),
                refusal=no.verdict,
            )
            try:
                async with self._database.reading() as tx:
                    await check_kept(tx, owner_id, request, content)
            except LostRace:  # before that was kept another process found the points, and stored an order
                return await self._find_or_open(owner_id, member_id, request, content, coalition, refusal)
            raise no.refusal from None

    async def resume(self) -> int:
        """Move on the orders that were left under way; answers how many were looked at.

        Partners side by side, so that one whose system is silent keeps no other waiting: PARTNERS_AT_ONCE of
        them, of each RESUME_OF_ONE at most, and none but the first after RESUME_SECONDS of its turn. The next run goes on.
        """
        coalition = await self._catalogue.current()
        async with self._database.reading() as tx:
            rows = await tx.all(sql.orders_under_way, before=self._clock.now() - RESUME_AFTER, most=RESUME_OF_ONE)
        of_partner: dict[UUID, list[Conversion]] = {}
        for row in rows:
            of_partner.setdefault(row["partner_id"], []).append(order_of(row))
        few = asyncio.Semaphore(PARTNERS_AT_ONCE)
        resuming = (self._resume(orders, coalition, few) for orders in of_partner.values())
        results = await asyncio.gather(*resuming, return_exceptions=True)
        for failed in results:
            if isinstance(failed, BaseException):
                raise failed
        return sum(looked_at for looked_at in results if isinstance(looked_at, int))

    async def _resume(self, orders: Sequence[Conversion], coalition: Coalition, few: asyncio.Semaphore) -> int:
        """Move on orders of one partner; answers how many were looked at."""
        async with few:
            until = monotonic() + RESUME_SECONDS
            looked_at = 0
            for order in orders:
                if self._is_ending or (looked_at and monotonic() > until):
                    break
                await self._resume_one(order, coalition)
                looked_at += 1
        return looked_at

    async def _resume_one(self, order: Conversion, coalition: Coalition) -> None:
        try:
            await self._advance(order, coalition)
        except Refused as left:
            log.warning("conversion left under way", conversion=str(order.id), reason=type(left).__name__)
            await self._look_later(order)
        except Exception:
            log.exception("conversion left under way", conversion=str(order.id))
            await self._look_later(order)

    async def _look_later(self, order: Conversion) -> None:
        """An order that cannot be moved on lets others have their turn."""
        async with self._database.reading() as tx:
            await tx.run(sql.look_later, bucket=order.bucket, conversion_id=order.id, updated_at=self._clock.now())

    async def _advance(self, order: Conversion, coalition: Coalition) -> Conversion:
        """Take an order as far as it goes; completed is the end of it."""
        if order.state == "held":
            await self._credit(order, coalition)
        if order.state != "completed":
            await self._capture(order, coalition)
        async with self._database.reading() as tx:
            order = await conversion_by_id(tx, order.id)
        if order.state == "refused":
            name, reference = coalition.partners[order.partner_id].name, ids.show("cnv", order.id)
            raise NotAllowed(f"{name} refused the credit, and the points are given back. It knows why, under {reference}.")
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
            # Since it was read it may have been given back, and held again under another hold.
            if locked["state"] != "held" or locked["hold_id"] != order.hold_id:
                return
            if locked["asking_until"] is not None and locked["asking_until"] > now:
                raise self._undecided(order, coalition)
            doubted = locked["in_doubt"]
            refused = None if doubted else await _refused(tx, order, coalition)
            asking_until = now + ASKING_AT_MOST
            if refused is None:
                await tx.run(sql.begin_asking, bucket=order.bucket, conversion_id=order.id, asking_until=asking_until)
            else:  # here and now: who asks in between would have credited what is given back
                await self._give_back(tx, order, coalition)
                await self._move(tx, order, "released", False, None)
            row = await tx.one(members_sql.membership_by_id, bucket=order.bucket, membership=order.membership_id)
        assert row is not None
        if refused is not None:
            raise refused
        partner = coalition.partners[order.partner_id]
        try:
            async with asyncio.timeout(ASK_SECONDS):
                credit = await self._ask(order, membership_of(row))
        except PartnerUnreached as silent:
            log.warning("a partner was not reached", conversion=str(order.id), partner=partner.code, reason=str(silent))
            settled = await self._settle(order, coalition, asking_until, "held" if doubted else "released")
            if doubted or not settled:
                raise self._undecided(order, coalition) from silent
            raise PartnerUnavailable(partner.name) from silent
        except (PartnerSilent, TimeoutError) as silent:
            said = str(silent) or f"no answer within {ASK_SECONDS} seconds"
            log.warning("a partner did not answer", conversion=str(order.id), partner=partner.code, reason=said)
            await self._settle(order, coalition, asking_until, "held")
            raise self._undecided(order, coalition) from silent
        except PartnerRefused as no:
            if doubted:
                log.error("a partner refuses what it may have credited", conversion=str(order.id), partner=partner.code)
                await self._settle(order, coalition, asking_until, "held")
                raise self._undecided(order, coalition) from no
            await self._settle(order, coalition, asking_until, "refused")
            return
        await self._settle(order, coalition, asking_until, "credited", credit.reference)

    async def _settle(
        self, order: Conversion, coalition: Coalition, asking_until: datetime, state: str, reference: str | None = None
    ) -> bool:
        """Store the outcome of asking, and whether that could be done; released and refused orders give their points back.

        Who was so slow that another process asks too knows nothing of that question, and can only say that points arrived.
        """
        async with self._database.transaction() as tx:
            locked = await tx.one(sql.order_for_update, bucket=order.bucket, conversion_id=order.id)
            if locked is None or locked["state"] != "held" or locked["hold_id"] != order.hold_id:
                log.error("an order moved on while it was asked for", conversion=str(order.id), answer=state)
                return False
            if state != "credited" and locked["asking_until"] != asking_until:
                log.warning("an order was asked for again meanwhile", conversion=str(order.id), answer=state)
                return False
            if state in ("released", "refused"):
                await self._give_back(tx, order, coalition)
            await self._move(tx, order, state, state == "held", reference)
            return True

    async def _give_back(self, tx: Tx, order: Conversion, coalition: Coalition) -> None:
        now = self._clock.now()
        today = coalition.day_of(now)
        (given_back,) = await tx.post(
            sql.release_hold, at=now, bucket=order.bucket, hold=order.hold_id, today=today, month=today.replace(day=1)
        )
        if not given_back:
            raise StateConflict(HOLD_IS_CLOSED)

    async def _ask(self, order: Conversion, account: Membership) -> Credit:
        async with self._connections.crediting(order.partner_id) as connector:
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
                raise StateConflict(HOLD_IS_CLOSED)
            await self._move(tx, order, "completed", False, None)

    async def _move(self, tx: Tx, order: Conversion, state: str, in_doubt: bool, reference: str | None) -> None:
        await tx.run(
            sql.move_order,
            bucket=order.bucket,
            conversion_id=order.id,
            state=state,
            in_doubt=in_doubt,
            reference=reference,
            updated_at=self._clock.now(),
        )


async def _refused(tx: Tx, order: Conversion, coalition: Coalition) -> Refused | None:
    """Why points may not flow to an order's member and partner any more, if so; what was asked for is asked on."""
    try:
        await target_membership(tx, coalition, order.member_id, order.partner_id)
    except Refused as refused:
        return refused
    return None
