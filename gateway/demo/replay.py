"""Replays one month after the other through the API: baskets as they happened, then the month's end.

Everything is idempotent, so a replay that was cut off starts the month again and ends in the same state.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from datetime import date
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from gateway.demo.api import Api, check
from gateway.demo.baskets import Event, Meridian, end_of_month

BATCH = 1_000
AT_ONCE = 16

ENROL = "mutation($input: [EnrolMemberInput!]!) { enrolMembers(input: $input) { errors { code message } } }"
LINK = "mutation($input: [LinkMembershipInput!]!) { linkMemberships(input: $input) { errors { code message } } }"
RECORD = "mutation($input: [PurchaseInput!]!) { recordPurchases(input: $input) { errors { code message } } }"
RETURN = "mutation($input: ReturnInput!) { returnPurchase(input: $input) { errors { code message } } }"
BALANCES = "query($refs: [MemberRef!]!) { membershipsByRef(refs: $refs) { wallets { available } } }"
QUOTE = "mutation($input: QuoteConversionInput!) { quoteConversion(input: $input) { quote { id } errors { code message } } }"
CONVERT = "mutation($input: ConvertPointsInput!) { convertPoints(input: $input) { errors { code message } } }"
REDEEM = "mutation($input: [RedeemPointsInput!]!) { redeemPointsBatch(input: $input) { errors { code message } } }"
EXPIRE = "mutation($input: ExpirePointsInput!) { expirePoints(input: $input) { points errors { code message } } }"
CLOSE = "mutation($input: ClosePeriodInput!) { closePeriod(input: $input) { period { state } errors { code message } } }"

T = TypeVar("T")
Progress = Callable[[int, str], None]
Operator = Callable[..., Awaitable[dict[str, Any]]]


def external_id(partner: str, household: int) -> str:
    """What a partner calls a household: different at each, since partners share no ids."""
    return f"{partner}-{household:05d}"


def card(household: int) -> str:
    """The coalition card of a household."""
    return f"MR-{household:08d}"


class Replay:
    """The tills, the shops and the operator of the demonstration; `partners` are their OAuth clients."""

    def __init__(self, meridian: Meridian, partners: dict[str, Api], operator: Operator, progress: Progress) -> None:
        self._meridian, self._partners, self._operator, self._progress = meridian, partners, operator, progress
        self._zone = ZoneInfo(meridian.coalition.timezone)
        self._airline = meridian.programme["SKY"]["issuer"]
        self._homes: dict[int, str] = {}
        self._joined: set[tuple[int, str]] = set()

    def skip(self, events: Sequence[Event]) -> None:
        """A month that is settled already: only remember who joined where."""
        for household, partner in self._new_pairs(events):
            self._homes.setdefault(household, partner)
            self._joined.add((household, partner))

    async def month(self, month: date, events: Sequence[Event]) -> None:
        """Replay a month and settle it."""
        await self._join(events)
        await self._post(events)
        at = end_of_month(month, self._zone)
        self._progress(0, "converting")
        await self._convert(month, at.isoformat())
        self._progress(0, "redeeming")
        await self._redeem(month, at.isoformat(), events)
        self._progress(0, "expiring")
        last_day = at.astimezone(self._zone).date().isoformat()
        expired = {"programme": "MER", "through": last_day, "occurredAt": at.isoformat()}
        check([(await self._operator(EXPIRE, input=expired))["expirePoints"]])
        self._progress(0, "settling")
        check([(await self._operator(CLOSE, input={"month": f"{month:%Y-%m}"}))["closePeriod"]])

    def _new_pairs(self, events: Sequence[Event]) -> Iterator[tuple[int, str]]:
        """Each (household, partner) that is seen for the first time, in order; every tenth household flies too."""
        for event in events:
            pairs = [(event.household, event.partner)]
            if event.household % self._meridian.replay.convert_every_household == 0:
                pairs.append((event.household, self._airline))
            for pair in pairs:
                if pair not in self._joined:
                    yield pair

    async def _join(self, events: Sequence[Event]) -> None:
        """A household enrols where it first shops, and links its card wherever it shops after that."""
        enrolments: dict[str, dict[int, None]] = defaultdict(dict)
        links: dict[str, dict[int, None]] = defaultdict(dict)
        for household, partner in self._new_pairs(events):
            home = self._homes.setdefault(household, partner)
            (enrolments if home == partner else links)[partner][household] = None
            self._joined.add((household, partner))
        for query, joining, field in ((ENROL, enrolments, "enrolMembers"), (LINK, links, "linkMemberships")):
            for partner, households in joining.items():
                wanted = [{"card": card(h), "externalId": external_id(partner, h)} for h in households]
                for some in _batches(wanted):
                    check((await self._partners[partner].ask(query, input=some))[field])

    async def _post(self, events: Sequence[Event]) -> None:
        """Post events so that each household's happen in order: in waves, a return ending the one before it."""
        waves: list[tuple[dict[str, list[Event]], list[Event]]] = []
        wave_of: dict[int, int] = defaultdict(int)
        for event in events:
            wave = wave_of[event.household]
            while len(waves) <= wave:
                waves.append((defaultdict(list), []))
            purchases, returns = waves[wave]
            if event.is_return:
                returns.append(event)
                wave_of[event.household] += 1
            else:
                purchases[event.partner].append(event)
        for purchases, returns in waves:
            batches = [(p, some) for p, each in purchases.items() for some in _batches(each)]
            await _at_once([self._record(partner, some) for partner, some in batches])
            # Returns of one household follow each other in waves, so those of a wave concern different households.
            await _at_once([self._return(event) for event in returns])

    async def _record(self, partner: str, events: Sequence[Event]) -> None:
        input = [
            {
                "idempotencyKey": f"purchase-{e.receipt}",
                "member": {"externalId": external_id(partner, e.household)},
                "receipt": e.receipt,
                "occurredAt": e.occurred_at.isoformat(),
                "total": {"amount": f"{e.amount_minor // 100}.{e.amount_minor % 100:02d}", "currency": "USD"},
            }
            for e in events
        ]
        check((await self._partners[partner].ask(RECORD, input=input))["recordPurchases"])
        self._progress(len(events), "posting baskets")

    async def _return(self, event: Event) -> None:
        input = {
            "idempotencyKey": f"return-{event.receipt}",
            "receipt": event.receipt,
            "occurredAt": event.occurred_at.isoformat(),
        }
        check([(await self._partners[event.partner].ask(RETURN, input=input))["returnPurchase"]])
        self._progress(1, "posting baskets")

    async def _available(self, partner: str, households: Sequence[int]) -> dict[int, int]:
        """What households can spend, as their partner sees it."""
        found: dict[int, int] = {}
        for some in _batches(households):
            refs = [{"externalId": external_id(partner, h)} for h in some]
            answer = (await self._partners[partner].ask(BALANCES, refs=refs))["membershipsByRef"]
            found.update({h: m["wallets"][0]["available"] for h, m in zip(some, answer, strict=True)})
        return found

    async def _convert(self, month: date, at: str) -> None:
        """Every tenth household with enough points turns some into miles, on the airline's own site."""
        take = self._meridian.conversion.take
        flyers = sorted(household for household, partner in self._joined if partner == self._airline)
        available = await self._available(self._airline, flyers)
        airline = self._partners[self._airline]

        async def convert(household: int) -> None:
            member = {"externalId": external_id(self._airline, household)}
            quote = {"from": "MER", "to": "SKY", "take": take, "member": member, "at": at,
                     "idempotencyKey": f"quote-{month:%Y-%m}-{household}"}  # fmt: skip
            quoted = (await airline.ask(QUOTE, input=quote))["quoteConversion"]
            check([quoted])
            order = {"idempotencyKey": f"conversion-{month:%Y-%m}-{household}", "quote": quoted["quote"]["id"],
                     "member": member, "occurredAt": at}  # fmt: skip
            check([(await airline.ask(CONVERT, input=order))["convertPoints"]])

        await _at_once([convert(h) for h in flyers if available[h] >= take])

    async def _redeem(self, month: date, at: str, events: Sequence[Event]) -> None:
        """Every household that bought something redeems what it can, where it spent most."""
        step = self._meridian.replay.redeem_step
        spent: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for event in events:
            if not event.is_return:
                spent[event.household][event.partner] += event.amount_minor
        favourites = {h: min(each, key=lambda code: (-each[code], code)) for h, each in spent.items()}
        by_partner: dict[str, list[int]] = defaultdict(list)
        for household in sorted(favourites):
            by_partner[favourites[household]].append(household)
        balances = await asyncio.gather(*(self._available(p, households) for p, households in by_partner.items()))
        available = {household: points for each in balances for household, points in each.items()}

        async def redeem(partner: str, households: Sequence[int]) -> None:
            input = [
                {
                    "idempotencyKey": f"redemption-{month:%Y-%m}-{household}",
                    "member": {"externalId": external_id(partner, household)},
                    "programme": "MER",
                    "points": available[household] // step * step,
                    "occurredAt": at,
                }
                for household in households
            ]
            check((await self._partners[partner].ask(REDEEM, input=input))["redeemPointsBatch"])

        wanted = {partner: [h for h in households if available[h] >= step] for partner, households in by_partner.items()}
        await _at_once([redeem(partner, some) for partner, each in wanted.items() for some in _batches(each)])


def _batches(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]


async def _at_once(calls: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run calls side by side, up to AT_ONCE of them, beginning in their order."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def call(coroutine: Coroutine[Any, Any, None]) -> None:
        async with gate:
            await coroutine

    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in calls:
                group.create_task(call(coroutine))
    finally:
        for coroutine in calls:
            coroutine.close()  # Python warns of those that never began, since one before them failed
