"""The reference data of the coalition as one immutable snapshot, read often and changed rarely."""

import asyncio
import time
from calendar import monthrange
from collections import Counter
from contextvars import Context
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from itertools import groupby
from typing import TypeVar
from uuid import UUID

from gateway.coalition.zone import Zone, read_zone
from gateway.database import Database, Tx
from gateway.refusals import OccurredInFuture, OccurredTooLongAgo, ProgrammeUnknown
from gateway.statements import load_queries
from gateway.turns import Busy

T = TypeVar("T")

sql = load_queries(__file__)

STALE_SECONDS, ZONE_SECONDS = 1.0, 3_600.0
NEVER = date.max
CLOCK_SKEW_SECONDS = 60
OLDEST_YEAR = 1970


class NoCoalition(RuntimeError):
    """The database holds no coalition yet; create one with `gateway coalition create` or `make demo`."""


@dataclass(frozen=True, slots=True)
class Programme:
    """A point currency. `custody` is ledger or partner; `expires_after_months` None: never.

    Earned points become available after `pending_days`; a member spends up to `spend_most` points at once and
    `spend_most_a_day` a day (None: any number), and may give them to others if they are `transferable`.
    """

    id: UUID
    code: str
    name: str
    issuer_id: UUID | None
    custody: str
    expires_after_months: int | None
    refund_policy: str
    pending_days: int
    spend_most: int | None
    spend_most_a_day: int | None
    transferable: bool

    def expires_on(self, day: date) -> date:
        """The last day on which points earned on `day` can be spent: the end of the month so many months on."""
        if self.expires_after_months is None:
            return NEVER
        months = day.year * 12 + day.month - 1 + self.expires_after_months
        year, month = divmod(months, 12)
        return date(year, month + 1, monthrange(year, month + 1)[1])


@dataclass(frozen=True, slots=True)
class Partner:
    """A member company. `protocol` and `endpoint` say how its own system is reached, if it has one; `on_credit` whether its
    purchases use up a credit."""

    id: UUID
    code: str
    name: str
    status: str
    protocol: str | None
    endpoint: str | None
    on_credit: bool


@dataclass(frozen=True, slots=True)
class Store:
    """A partner's place of sale."""

    id: UUID
    partner_id: UUID
    code: str
    name: str


@dataclass(frozen=True, slots=True)
class Contract:
    """A partner's prices from `valid_from` on: major units of `currency` per point; `earn_rate` in points per 1.00;
    `service_fee` a share of the issue charge; `pending_days` None: as the programme says."""

    id: UUID
    partner_id: UUID
    programme_id: UUID
    currency: str
    version: int
    valid_from: date
    earn_rate: Fraction
    issue_price: Decimal
    redeem_price: Decimal
    service_fee: Decimal
    conversion_price: Decimal
    pending_days: int | None


@dataclass(frozen=True, slots=True)
class Rate:
    """`take` points of the source buy `give` of the target, in steps of `increment` from `minimum` on."""

    id: UUID
    source_id: UUID
    target_id: UUID
    take: int
    give: int
    minimum: int
    increment: int
    valid_from: datetime


class ById(dict[UUID, T]):
    """What a snapshot has, by id. No row names what is not there: what it does not know was added by another process since it was
    read, and `[]` raises Busy for it."""

    def __missing__(self, id: UUID) -> T:
        raise Busy("The coalition has just been changed; try again in a moment.")


@dataclass(frozen=True, slots=True)
class Coalition:
    """The whole snapshot, with the look-ups that everything else is built from."""

    id: UUID
    name: str
    zone: Zone
    settlement_currency: str
    started_on: date
    backdating_days: int | None
    programmes: "ById[Programme]"
    partners: "ById[Partner]"
    stores: dict[tuple[UUID, str], Store]
    stores_of: dict[UUID, tuple[Store, ...]]
    """Of each partner that has any, by code."""
    stores_by_id: dict[UUID, Store]
    contracts: dict[tuple[UUID, str], tuple[Contract, ...]]
    contracts_by_id: "ById[Contract]"
    rates: dict[tuple[UUID, UUID], tuple[Rate, ...]]
    lengths: dict[str, int]
    """How many items a field of the schema lists of the coalition, where no page says it; at most, of one partner."""

    def day_of(self, at: datetime) -> date:
        """The calendar day of a moment in the coalition's time zone."""
        return self.zone.day_of(at)

    def contract_of(self, partner_id: UUID, currency: str, on: date) -> Contract | None:
        """The contract in force on a day, None if there is none in that currency yet."""
        for contract in self.contracts.get((partner_id, currency), ()):
            if contract.valid_from <= on:
                return contract
        return None

    def contracts_begin(self, partner_id: UUID, currency: str) -> date | None:
        """The first day of a partner's first contract in a currency, None if it has none at all."""
        return min((contract.valid_from for contract in self.contracts.get((partner_id, currency), ())), default=None)

    def rate_of(self, source_id: UUID, target_id: UUID, at: datetime) -> Rate | None:
        """The conversion rate in force at a moment."""
        return next((r for r in self.rates.get((source_id, target_id), ()) if r.valid_from <= at), None)

    def programme_by_code(self, code: str, field: str = "programme") -> Programme:
        """The programme that `field` of an input names. Raises ProgrammeUnknown."""
        for programme in self.programmes.values():
            if programme.code == code:
                return programme
        raise ProgrammeUnknown(code).at(field)

    def check_occurred(self, at: datetime, now: datetime, field: str = "occurredAt") -> date:
        """The coalition's day of something that is said, in `field` of an input, to have happened `at`.

        Raises OccurredInFuture (beyond CLOCK_SKEW_SECONDS of tolerance for tills' clocks), OccurredTooLongAgo.
        """
        if at.year < OLDEST_YEAR:
            raise OccurredTooLongAgo(at.isoformat(), (now - at).days - 1).at(field)
        if (at - now).total_seconds() > CLOCK_SKEW_SECONDS:
            raise OccurredInFuture(at.isoformat()).at(field)
        if self.backdating_days is not None and (now - at).days > self.backdating_days:
            raise OccurredTooLongAgo(at.isoformat(), self.backdating_days).at(field)
        return self.day_of(at)


class Catalogue:
    """Hands out the current snapshot; at most STALE_SECONDS old, and fresh after `changed`. It is read when the database has
    noted that something of it was written; its time zone each ZONE_SECONDS, as another release of the database may know it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._snapshot: Coalition | None = None
        self._read_at = self._zone_read_at = 0.0
        self._changes = self._noted = 0
        self._reading: tuple[int, asyncio.Task[None]] | None = None

    async def current(self) -> Coalition:
        """Raises NoCoalition, DatabaseAway."""
        if self._is_stale():
            await self._read_since(self._changes)
        assert self._snapshot is not None
        return self._snapshot

    def changed(self) -> None:
        """Something in it was written; read it again before the next use."""
        self._read_at = 0.0
        self._changes += 1

    async def _read_since(self, change: int) -> None:
        """One reads, and all who wait go on at once; whoever has changed something waits for what was begun after that."""
        while True:
            if self._reading is None:
                reading = asyncio.create_task(self._read(self._changes), context=Context())
                reading.add_done_callback(lambda done: done.cancelled() or done.exception())  # told to those who wait, if any
                self._reading = self._changes, reading
            begun, reading = self._reading
            await asyncio.shield(reading)
            if begun >= change:
                return

    async def _read(self, changes: int) -> None:
        began = time.monotonic()
        try:
            async with self._database.reading() as tx:
                noted = await tx.value(sql.changes)  # first: what changes while it is read is read once more
                is_new = self._snapshot is None or began - self._zone_read_at > ZONE_SECONDS
                if is_new or noted != self._noted:
                    zone = None if is_new or self._snapshot is None else self._snapshot.zone
                    self._snapshot, self._noted = await read_coalition(tx, zone), noted
                    self._zone_read_at = began if zone is None else self._zone_read_at
            if changes == self._changes:
                self._read_at = began
        finally:
            self._reading = None

    def _is_stale(self) -> bool:
        return self._snapshot is None or time.monotonic() - self._read_at > STALE_SECONDS


async def read_coalition(tx: Tx, zone: Zone | None = None) -> Coalition:
    """Read the whole snapshot, but for a `zone` that is known. Raises NoCoalition."""
    row = await tx.one(sql.coalition)
    if row is None:
        raise NoCoalition(NoCoalition.__doc__)
    contracts: dict[tuple[UUID, str], list[Contract]] = {}
    for c in await tx.all(sql.contracts):
        rate = Fraction(c["earn_rate_numerator"], c["earn_rate_denominator"])
        contracts.setdefault((c["partner_id"], c["currency"]), []).append(
            Contract(
                c["contract_id"],
                c["partner_id"],
                c["programme_id"],
                c["currency"],
                c["version"],
                c["valid_from"],
                rate,
                c["issue_price"],
                c["redeem_price"],
                c["service_fee"],
                c["conversion_price"],
                c["pending_days"],
            )
        )
    rates: dict[tuple[UUID, UUID], list[Rate]] = {}
    for r in await tx.all(sql.rates):
        rates.setdefault((r["source_id"], r["target_id"]), []).append(Rate(*r.values()))
    programmes = ById({p["programme_id"]: Programme(*p.values()) for p in await tx.all(sql.programmes)})
    partners = ById({p["partner_id"]: Partner(*p.values()) for p in await tx.all(sql.partners)})
    contracts_of = Counter(partner_id for (partner_id, _), found in contracts.items() for _ in found)
    stores = sorted((Store(*s.values()) for s in await tx.all(sql.stores)), key=lambda s: (s.partner_id, s.code))
    return Coalition(
        id=row["coalition_id"],
        name=row["name"],
        zone=zone or await read_zone(tx, row["timezone"]),
        settlement_currency=row["settlement_currency"],
        started_on=row["started_on"],
        backdating_days=row["backdating_days"],
        programmes=programmes,
        partners=partners,
        stores={(s.partner_id, s.code): s for s in stores},
        stores_of={partner_id: tuple(own) for partner_id, own in groupby(stores, key=lambda s: s.partner_id)},
        stores_by_id={s.id: s for s in stores},
        contracts={key: tuple(found) for key, found in contracts.items()},
        contracts_by_id=ById({c.id: c for found in contracts.values() for c in found}),
        rates={key: tuple(found) for key, found in rates.items()},
        lengths={
            "programmes": len(programmes),
            "conversionRates": len(rates),
            "contracts": max(contracts_of.values(), default=0),
            "positions": len(partners) + 1,  # the coalition has one, too
            "standings": len(programmes),
            "statements": len(partners),
        },
    )
