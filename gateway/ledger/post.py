"""Posting: every movement of points is an item of a batch, posted by one call of one posting function."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import UUID

from gateway.batching import Lanes
from gateway.clock import Clock
from gateway.database import CreditShort, Database, Duplicate, PostedNothing, Row, Stuck, WalletTooFull
from gateway.ids import bucket_of, new_id_in
from gateway.ledger.items import (
    Answer,
    Capture,
    Earning,
    Hold,
    Item,
    Key,
    Redemption,
    Return,
    Terms,
    bucket_of_item,
    lane_of_earning,
    name_of_key,
    names_of,
    owner_of,
    turns_of,
    wallet_of,
)
from gateway.parties import Shares
from gateway.statements import Statement, load_queries
from gateway.turns import Claims, OneAtATime

sql = load_queries(__file__)

CREDIT_SLOTS = 16
SINGLES_AT_ONCE, SINGLES_OF_ONE = 4, 2
STUCK = (Stuck, PostedNothing)
"""What is posted again beside its lane, wallet by wallet: it waited too long, or lost one race after the other."""


OneItem = TypeVar("OneItem", Earning, Return, Redemption, Hold, Capture)
WalletItem = TypeVar("WalletItem", Return, Redemption, Hold, Capture)
Posted = TypeVar("Posted")


class Ledger:
    """The door to the posting functions; concurrent calls share batches. `posted` is called after each of them."""

    def __init__(self, database: Database, clock: Clock, lanes: int, posted: Callable[[], None] = lambda: None) -> None:
        self._database, self._clock, self._posted = database, clock, posted
        self.one_at_a_time = OneAtATime()
        self._names = Claims()
        # What is posted by itself leaves the lanes their connections, and one party's others theirs.
        self._singles, self._shares = asyncio.Semaphore(SINGLES_AT_ONCE), Shares(SINGLES_OF_ONE)

        def claiming_wallets(statement: Statement) -> Lanes[WalletItem, Answer]:
            async def post(items: Sequence[WalletItem]) -> list[Answer]:
                return await _again(lambda: self._call(statement, items, {}))

            return Lanes(post, bucket_of_item, owner_of, lanes, STUCK, wallet_of, alone=True)

        self._earnings = Lanes[Earning, Answer](self._post_earnings, lane_of_earning, owner_of, lanes, STUCK, wallet_of)
        self._returns: Lanes[Return, Answer] = claiming_wallets(sql.post_returns)
        self._redemptions: Lanes[Redemption, Answer] = claiming_wallets(sql.post_redemptions)
        self._holds: Lanes[Hold, Answer] = claiming_wallets(sql.post_holds)
        self._captures: Lanes[Capture, Answer] = claiming_wallets(sql.post_captures)

    async def earn(self, items: Sequence[Earning]) -> list[Answer]:
        """Post purchases; each has its own answer. Raises Busy, DatabaseAway."""
        return await self._submit(self._earnings, items)

    async def take_back(self, items: Sequence[Return]) -> list[Answer]:
        """Post returns; the refusal STALE says that the purchase had another return meanwhile. Raises Busy, DatabaseAway."""
        return await self._submit(self._returns, items)

    async def redeem(self, items: Sequence[Redemption]) -> list[Answer]:
        """Post redemptions, first-expiring lots first. Raises Busy, DatabaseAway."""
        return await self._submit(self._redemptions, items)

    async def hold(self, items: Sequence[Hold]) -> list[Answer]:
        """Set points aside. Raises Busy, DatabaseAway."""
        return await self._submit(self._holds, items)

    async def capture(self, items: Sequence[Capture]) -> list[Answer]:
        """Redeem out of holds. Raises Busy, DatabaseAway."""
        return await self._submit(self._captures, items)

    async def once(self, key: Key, post: Callable[[], Awaitable[Posted]]) -> Posted:
        """Post something by itself while nothing else with its key is under way in this process. Raises Busy, Stuck.

        Another process may win a race for the key or a lock; then it is posted again and finds what the other did.
        """
        names = [name_of_key(key.owner_id, key.text)]
        await self._names.claim(names)
        try:
            async with self._shares.own(), self._singles:
                return await _again(post)
        finally:
            self._posted()
            self._names.free(names)

    @asynccontextmanager
    async def claiming(self, owner_id: UUID, key: str) -> AsyncIterator[None]:
        """Nothing else with this key is posted meanwhile, of whatever kind and for whichever member. Raises Busy."""
        names = [name_of_key(owner_id, key)]
        await self._names.claim(names)
        try:
            yield
        finally:
            self._names.free(names)

    async def _submit(self, lanes: Lanes[OneItem, Answer], items: Sequence[OneItem]) -> list[Answer]:
        """Post items, those that share a key or a receipt one after the other: what came first decides.

        When the caller goes away they are posted all the same, and hold their names until then, so that no item is left
        half-known.
        """
        if not items:
            return []
        names = [name for item in items for name in names_of(item)]
        if len(set(names)) == len(names):
            return await self._submit_claimed(lanes, names, items)
        return await self._submit_in_rounds(lanes, items)

    async def _submit_in_rounds(self, lanes: Lanes[OneItem, Answer], items: Sequence[OneItem]) -> list[Answer]:
        # Numbers stand for names and turns, since each round looks at all that are left.
        numbers: dict[Hashable, int] = {}

        def numbered(named: Iterable[Hashable]) -> list[int]:
            return [numbers.setdefault(each, len(numbers)) for each in named]

        answers: dict[int, Answer] = {}
        left = [
            (n, numbered(names_of(item)), numbered(("turn", each) for each in turns_of(item))) for n, item in enumerate(items)
        ]
        while left:
            now: list[int] = []
            claimed: set[int] = set()
            behind: set[int] = set()
            for n, names, turns in left:
                if claimed.isdisjoint(names) and behind.isdisjoint(turns):
                    now.append(n)
                else:
                    behind.update(turns)
                # What waits keeps its names, so that nothing behind it overtakes it.
                claimed.update(names)
            of_items = [name for n in now for name in names_of(items[n])]
            answers.update(zip(now, await self._submit_claimed(lanes, of_items, [items[n] for n in now]), strict=True))
            left = [each for each in left if each[0] not in answers]
        return [answers[n] for n in range(len(items))]

    async def _submit_claimed(
        self, lanes: Lanes[OneItem, Answer], names: Sequence[Hashable], items: Sequence[OneItem]
    ) -> list[Answer]:
        await self._names.claim(names)
        return await lanes.submit(items, lambda: self._names.free(names))

    async def drain(self) -> None:
        """Wait for what is under way."""
        for lanes in (self._earnings, self._returns, self._redemptions, self._holds, self._captures):
            await lanes.drain()

    @property
    def waiting(self) -> int:
        """Items that wait to be posted."""
        return sum(lanes.waiting for lanes in (self._earnings, self._returns, self._redemptions, self._holds, self._captures))

    async def _post_earnings(self, items: Sequence[Earning]) -> list[Answer]:
        """Post purchases the quick way; where the database says that this batch needs more care, with that care."""
        care = {"dealing": False, "careful": False}

        async def post() -> list[Answer]:
            try:
                return await self._call(sql.post_earnings, items, care)
            except CreditShort:
                # The batch's slot of a partner's credit ran short: have the rest of the credit dealt out anew.
                care["dealing"] = True
                raise
            except (WalletTooFull, Duplicate):
                # Lock the wallets and look the receipts up first, and refuse one by one what does not fit.
                care["careful"] = True
                raise

        return await _again(post)

    async def _call(self, statement: Statement, items: Sequence[Item], care: Mapping[str, bool]) -> list[Answer]:
        """Call a posting function: what it takes of the terms once, what it takes of the items in arrays.

        Items go in the order of their buckets and members, where neighbours are stored on the same pages; those of one
        member stay in their own order, and all do where a credit goes to those that came first.
        """
        order = list(range(len(items)))
        if not any(item.terms.on_credit for item in items):
            order.sort(key=lambda n: (bucket_of_item(items[n]), items[n].member_id.int))
        items = [items[n] for n in order]
        terms, numbers = _number_terms(items)
        buckets = [bucket_of(i.member_id) for i in items]
        transactions = [new_id_in(bucket) for bucket in buckets]
        now = self._clock.now()
        given: dict[str, object] = {
            **care,
            "at": now,
            "term": numbers,
            "buckets": buckets,
            "transactions": transactions,
            "slot": buckets[0] % CREDIT_SLOTS,
            "keys": [i.key.text for i in items],
            "digests": [i.key.digest for i in items],
        }
        for name in statement.parameters:
            if name in _OF_TERMS:
                field = _OF_TERMS[name]
                given[name] = [getattr(t, field) for t in terms]
            elif name in _OF_ITEMS:
                field = _OF_ITEMS[name]
                given[name] = [getattr(i, field) for i in items]

        row = await self._database.post(statement, **{name: given[name] for name in statement.parameters})
        self._posted()
        firsts, postings = row["firsts"], row["postings"]
        answers: dict[int, Answer] = {}
        for n, (place, verdict, transaction, number) in enumerate(zip(order, row["answers"], transactions, numbers, strict=True)):
            if verdict == "post":
                answers[place] = Answer(transaction, None, False, row["at"], postings[number - 1])
            elif verdict == "replay":
                answers[place] = Answer(firsts[n], None, True)
            else:
                answers[place] = Answer(None, verdict, False)
        return [answers[place] for place in range(len(items))]

    async def kept(self, keys: Sequence[Key]) -> list[Answer | None]:
        """The first answers to keys that were used before, for requests that are refused before they get here.

        IDEMPOTENCY_KEY_REUSED where the content was another. Raises DatabaseAway.
        """
        usable = [key for key in keys if key.text.isprintable()]
        async with self._database.reading() as tx:
            rows = await tx.all(sql.kept_answers, owners=[k.owner_id for k in usable], keys=[k.text for k in usable])
        # Two processes may have taken one key for two contents (decision 0001): each gets its own answer.
        of_key = {(row["owner_id"], row["key"]): row for row in rows}
        of_content = {(row["owner_id"], row["key"], row["digest"]): row for row in rows}
        return [
            _kept_answer(of_content.get((key.owner_id, key.text, key.digest)) or of_key.get((key.owner_id, key.text)), key)
            for key in keys
        ]


_OF_TERMS = {
    "partners": "partner_id",
    "programmes": "programme_id",
    "contracts": "contract_id",
    "currencies": "currency",
    "months": "month",
    "prices": "issue_price",
    "expiries": "expires_on",
    "maturities": "matures_on",
    "days": "day",
    "todays": "today",
}
_OF_ITEMS = {
    "members": "member_id",
    "memberships": "membership_id",
    "occurred": "occurred_at",
    "points": "points",
    "receipts": "receipt",
    "stores": "store_id",
    "amounts": "amount_minor",
    "lines": "lines",
    "purchases": "purchase_id",
    "versions": "version",
    "refs": "reference",
    "until": "expires_at",
    "holds": "hold_id",
}


def _number_terms(items: Sequence[Item]) -> tuple[list[Terms], list[int]]:
    """The distinct terms of a batch, and the number of each item's, from 1."""
    terms: dict[Terms, int] = {}
    by_identity: dict[int, int] = {}
    numbers: list[int] = []
    for item in items:
        number = by_identity.get(id(item.terms))
        if number is None:
            number = by_identity[id(item.terms)] = terms.setdefault(item.terms, len(terms) + 1)
        numbers.append(number)
    return list(terms), numbers


def _kept_answer(row: Row | None, key: Key) -> Answer | None:
    if row is None:
        return None
    if row["digest"] != key.digest:
        return Answer(None, "IDEMPOTENCY_KEY_REUSED", False)
    return Answer(row["transaction_id"], row["refusal"], True)


AGAIN_AT_MOST = 5


async def _again(post: Callable[[], Awaitable[Posted]]) -> Posted:
    """Post, and again while nothing was posted: another process won a race, or the batch needs more care."""
    for _ in range(AGAIN_AT_MOST):
        try:
            return await post()
        except PostedNothing:
            continue
    return await post()
