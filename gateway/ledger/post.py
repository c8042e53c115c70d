"""Posting: every movement of points is an item of a batch, posted by one call of one posting function."""

from collections.abc import Sequence
from datetime import date, datetime
from uuid import UUID

import msgspec

from gateway.batching import Lanes, OneAtATime
from gateway.clock import Clock
from gateway.database import Database, Row, Statement, load_queries
from gateway.ids import bucket_of, new_id_in

sql = load_queries(__file__)


class Answer(msgspec.Struct, frozen=True):
    """What the ledger said of one item: its transaction with the period it went to, or the code of its refusal;
    `replayed` if it was the first answer to its key, given again, and then the times are those of the first."""

    transaction_id: UUID | None
    refusal: str | None
    replayed: bool
    posted_at: datetime | None = None
    period: date | None = None


class Key(msgspec.Struct, frozen=True):
    """An idempotency key of `owner_id` (a partner or a member), with the digest of the content it came with."""

    owner_id: UUID
    text: str
    digest: bytes


class Earning(msgspec.Struct, frozen=True):
    """A purchase and the whole points it brings; `month` is that of `occurred_at` in the coalition's time zone."""

    key: Key
    member_id: UUID
    membership_id: UUID
    programme_id: UUID
    partner_id: UUID
    contract_id: UUID
    occurred_at: datetime
    month: date
    expires_on: date
    points: int
    receipt: str
    store_id: UUID | None
    amount_minor: int
    currency: str
    lines: str | None
    explanation: str


class Return(msgspec.Struct, frozen=True):
    """What comes back of a purchase; `version` is the number of returns it had when `points` was worked out."""

    key: Key
    member_id: UUID
    programme_id: UUID
    purchase_id: UUID
    version: int
    occurred_at: datetime
    month: date
    day: date
    amount_minor: int
    points: int
    lines: str | None


class Redemption(msgspec.Struct, frozen=True):
    """Points spent at a partner; lots that run out before `day` are not touched."""

    key: Key
    member_id: UUID
    membership_id: UUID
    programme_id: UUID
    partner_id: UUID
    contract_id: UUID
    occurred_at: datetime
    month: date
    day: date
    points: int
    reference: str | None


class Ledger:
    """The door to the posting functions; concurrent calls share batches."""

    def __init__(self, database: Database, clock: Clock, lanes: int) -> None:
        self._database, self._clock = database, clock
        self.one_at_a_time = OneAtATime()
        self._earnings = Lanes[Earning, Answer](
            self._post_earnings,
            bucket=lambda item: bucket_of(item.member_id),
            claims=lambda item: ((item.key.owner_id, item.key.text), (item.partner_id, "receipt", item.receipt)),
            count=lanes,
        )
        self._returns = Lanes[Return, Answer](
            self._post_returns, bucket=lambda item: bucket_of(item.member_id), claims=_key_and_wallet, count=lanes
        )
        self._redemptions = Lanes[Redemption, Answer](
            self._post_redemptions, bucket=lambda item: bucket_of(item.member_id), claims=_key_and_wallet, count=lanes
        )

    async def earn(self, items: Sequence[Earning]) -> list[Answer]:
        """Post purchases; each has its own answer. Raises Busy, DatabaseAway."""
        return await self._earnings.submit(items)

    async def take_back(self, items: Sequence[Return]) -> list[Answer]:
        """Post returns; the refusal STALE says that the purchase had another return meanwhile. Raises Busy, DatabaseAway."""
        return await self._returns.submit(items)

    async def redeem(self, items: Sequence[Redemption]) -> list[Answer]:
        """Post redemptions, first-expiring lots first. Raises Busy, DatabaseAway."""
        return await self._redemptions.submit(items)

    async def drain(self) -> None:
        """Wait for what is under way."""
        await self._earnings.drain()
        await self._returns.drain()
        await self._redemptions.drain()

    async def _post_earnings(self, items: list[Earning]) -> list[Answer]:
        return await self._call(
            sql.post_earnings,
            items,
            programmes=[i.programme_id for i in items],
            memberships=[i.membership_id for i in items],
            partners=[i.partner_id for i in items],
            contracts=[i.contract_id for i in items],
            expiries=[i.expires_on for i in items],
            receipts=[i.receipt for i in items],
            stores=[i.store_id for i in items],
            amounts=[i.amount_minor for i in items],
            currencies=[i.currency for i in items],
            lines=[i.lines for i in items],
            explanations=[i.explanation for i in items],
        )

    async def _post_returns(self, items: list[Return]) -> list[Answer]:
        return await self._call(
            sql.post_returns,
            items,
            programmes=[i.programme_id for i in items],
            purchases=[i.purchase_id for i in items],
            versions=[i.version for i in items],
            days=[i.day for i in items],
            amounts=[i.amount_minor for i in items],
            lines=[i.lines for i in items],
        )

    async def _post_redemptions(self, items: list[Redemption]) -> list[Answer]:
        return await self._call(
            sql.post_redemptions,
            items,
            programmes=[i.programme_id for i in items],
            memberships=[i.membership_id for i in items],
            partners=[i.partner_id for i in items],
            contracts=[i.contract_id for i in items],
            days=[i.day for i in items],
            refs=[i.reference for i in items],
        )

    async def _call(
        self, statement: Statement, items: Sequence[Earning | Return | Redemption], **columns: object
    ) -> list[Answer]:
        buckets = [bucket_of(i.member_id) for i in items]
        now = self._clock.now()
        async with self._database.reading() as tx:
            rows = await tx.all(
                statement,
                at=now,
                owners=[i.key.owner_id for i in items],
                keys=[i.key.text for i in items],
                digests=[i.key.digest for i in items],
                buckets=buckets,
                members=[i.member_id for i in items],
                transactions=[new_id_in(bucket) for bucket in buckets],
                occurred=[i.occurred_at for i in items],
                months=[i.month for i in items],
                points=[i.points for i in items],
                **columns,
            )
        return [Answer(row["transaction_id"], row["refusal"], row["replayed"], now, row["posting"]) for row in rows]

    async def kept(self, keys: Sequence[Key]) -> list[Answer | None]:
        """The first answers to keys that were used before, for requests that are refused before they get here.

        IDEMPOTENCY_KEY_REUSED where the content was another. Raises DatabaseAway.
        """
        usable = [key for key in keys if key.text.isprintable()]
        async with self._database.reading() as tx:
            rows = await tx.all(sql.kept_answers, owners=[k.owner_id for k in usable], keys=[k.text for k in usable])
        found = {(row["owner_id"], row["key"]): row for row in rows}
        return [_kept_answer(found.get((key.owner_id, key.text)), key) for key in keys]


def _kept_answer(row: Row | None, key: Key) -> Answer | None:
    if row is None:
        return None
    if row["digest"] != key.digest:
        return Answer(None, "IDEMPOTENCY_KEY_REUSED", False)
    return Answer(row["transaction_id"], row["refusal"], True)


def _key_and_wallet(item: Return | Redemption) -> tuple[tuple[UUID, str], tuple[UUID, UUID]]:
    return (item.key.owner_id, item.key.text), (item.member_id, item.programme_id)
