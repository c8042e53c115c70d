"""What the operator does to the coalition: create it, onboard partners, publish contracts and rates."""

import re
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from urllib.parse import urlsplit
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gateway.coalition.catalogue import Coalition, Contract, Programme, read_coalition, sql
from gateway.database import Tx
from gateway.ids import new_id
from gateway.points import MAX_POINTS
from gateway.refusals import InputNotAccepted, NotAllowed, RateNotOffered, Refused, StateConflict
from partners.protocols import PROTOCOLS

MONTHS_MAX = 1_200
STORE_MAX_LENGTH = 100


class NotOnboarded(RuntimeError):
    """One of several partners, or one of its contracts, was refused: `partner`, the position of its contract or None, and
    the refusal itself."""

    def __init__(self, partner: str, contract: int | None, refused: Refused) -> None:
        super().__init__(refused.message)
        self.partner, self.contract, self.refused = partner, contract, refused


@dataclass(frozen=True, slots=True)
class NewCoalition:
    """`started_on` is the first settlement month; `backdating_days` None: any age of event is accepted."""

    name: str
    timezone: str
    settlement_currency: str
    started_on: date
    backdating_days: int | None = 400


@dataclass(frozen=True, slots=True)
class NewProgramme:
    """`issuer_id` None: the coalition itself."""

    code: str
    name: str
    custody: str
    issuer_id: UUID | None = None
    expires_after_months: int | None = None
    refund_policy: str = "allow_debt"


@dataclass(frozen=True, slots=True)
class NewContract:
    """Prices in major units of `currency` per point, `earn_rate` in points per 1.00 of purchase; `pending_days` None:
    as the programme says."""

    programme: str
    currency: str
    valid_from: date
    earn_rate: Fraction
    issue_price: Decimal
    redeem_price: Decimal
    service_fee: Decimal
    conversion_price: Decimal
    pending_days: int | None = None


@dataclass(frozen=True, slots=True)
class NewPartner:
    """A partner as its `partner.toml` or the operator describes it.

    A `protocol` or an `endpoint` that is None stays as it is known, unless the partner is `disconnected`.
    """

    code: str
    name: str
    protocol: str | None = None
    endpoint: str | None = None
    disconnected: bool = False
    stores: tuple[tuple[str, str], ...] = ()
    contracts: tuple[NewContract, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class NewRate:
    """`take` points of `source` become `give` of `target`."""

    source: str
    target: str
    take: int
    give: int
    minimum: int
    increment: int
    valid_from: datetime


async def create_coalition(tx: Tx, new: NewCoalition) -> None:
    """Raises InputNotAccepted for an unknown time zone, StateConflict when the database has a coalition."""
    try:
        ZoneInfo(new.timezone)
    except (ZoneInfoNotFoundError, ValueError):
        raise InputNotAccepted(f"{new.timezone!r} is not a time zone such as Europe/Vienna.", "timezone") from None
    if await tx.one(sql.coalition) is not None:
        raise StateConflict("This database has a coalition already; one database serves one.")
    await tx.run(
        sql.store_coalition,
        coalition_id=new_id(),
        name=new.name,
        timezone=new.timezone,
        settlement_currency=new.settlement_currency,
        started_on=new.started_on.replace(day=1),
        backdating_days=new.backdating_days,
    )


async def create_programme(tx: Tx, new: NewProgramme) -> UUID:
    """Create a point currency and answer its id. Raises InputNotAccepted, StateConflict when the code is taken."""
    if not re.fullmatch(r"[A-Z][A-Z0-9]{1,9}", new.code):
        raise InputNotAccepted(f"A programme's code is 2 to 10 capitals and digits, such as MER, not {new.code!r}.", "code")
    if not new.name.strip():
        raise InputNotAccepted("A programme has a name.", "name")
    if (new.custody == "partner") != (new.issuer_id is not None):
        raise InputNotAccepted("A programme that a partner keeps names that partner, and no other does.", "issuer")
    if new.expires_after_months is not None and not 1 <= new.expires_after_months <= MONTHS_MAX:
        told = f"expiresAfterMonths is {new.expires_after_months}; it must be between 1 and {MONTHS_MAX}."
        raise InputNotAccepted(told, "expiresAfterMonths")
    programme_id = new_id()
    if not await tx.value(sql.programme_code_is_free, code=new.code):
        raise StateConflict(f"There is a programme {new.code} already.").at("code")
    await tx.run(
        sql.store_programme,
        programme_id=programme_id,
        code=new.code,
        name=new.name,
        issuer_id=new.issuer_id,
        custody=new.custody,
        expires_after_months=new.expires_after_months,
        refund_policy=new.refund_policy,
    )
    return programme_id


async def onboard_partner(tx: Tx, new: NewPartner, now: datetime) -> UUID:
    """Create a partner with its stores, or bring what is known of it up to date; answers its id.

    Contracts are published apart, since they need the programmes, whose issuer may be this partner.
    Raises InputNotAccepted.
    """
    if not new.code.isascii() or not new.code.islower() or not new.code.replace("_", "").replace("-", "").isalnum():
        raise InputNotAccepted(f"The partner code {new.code!r} must be lower-case letters and digits.", "code")
    if not 2 <= len(new.code) <= 31 or not new.code[0].isalpha():
        raise InputNotAccepted(f"The partner code {new.code!r} must begin with a letter and have 2 to 31.", "code")
    if not new.name.strip():
        raise InputNotAccepted("A partner has a name.", "name")
    _check_connection(new)
    codes = [code for code, _ in new.stores]
    for position, (code, name) in enumerate(new.stores):
        if code in codes[:position]:
            raise InputNotAccepted(f"The store code {code[:40]!r} is used twice.", "stores", str(position), "code")
        for field_name, text in (("code", code), ("name", name)):
            if not text.strip() or not text.isprintable() or len(text) > STORE_MAX_LENGTH:
                told = f"A store's {field_name} is 1 to {STORE_MAX_LENGTH} printable characters, not {text[:40]!r}."
                raise InputNotAccepted(told, "stores", str(position), field_name)
    partner_id: UUID = await tx.value(
        sql.store_partner,
        partner_id=new_id(),
        code=new.code,
        name=new.name,
        protocol=new.protocol,
        endpoint=new.endpoint,
        disconnected=new.disconnected,
        onboarded_at=now,
    )
    for code, name in new.stores:
        await tx.run(sql.store_store, store_id=new_id(), partner_id=partner_id, code=code, name=name)
    return partner_id


def _check_connection(new: NewPartner) -> None:
    """A partner's own system has a protocol that is spoken here and an address; one that is disconnected has neither."""
    if new.disconnected and (new.protocol or new.endpoint):
        told = "A protocol and an endpoint go together: null for one of them takes both away."
        raise InputNotAccepted(told, "protocol" if new.protocol else "endpoint")
    if new.protocol is not None and new.protocol not in PROTOCOLS:
        told = f"The protocol {new.protocol[:40]!r} is not spoken here; there are {', '.join(sorted(PROTOCOLS))}."
        raise InputNotAccepted(told, "protocol")
    try:
        address = urlsplit(new.endpoint or "http://none")
        # urlsplit takes no notice of blanks and line ends, which whoever calls there trips over.
        bare = all("!" <= char <= "~" for char in new.endpoint or "")
        usable = bare and address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InputNotAccepted(f"{(new.endpoint or '')[:80]!r} is no address such as https://loyalty.example/api.", "endpoint")


async def publish_contract(tx: Tx, coalition: Coalition, partner_id: UUID, new: NewContract) -> UUID:
    """Publish prices from a day on and answer the contract's id; earlier contracts stay as they were.

    Raises ProgrammeUnknown, InputNotAccepted, StateConflict when it does not begin after the one before.
    """
    programme = coalition.programme_by_code(new.programme)
    _check_prices(new)
    _check_pending(new.pending_days)
    if programme.custody != "ledger":
        raise InputNotAccepted(
            f"{programme.code} is kept by its own partner; contracts are in a programme of this ledger.", "programme"
        )
    if new.currency != coalition.settlement_currency:
        raise InputNotAccepted(f"This coalition settles in {coalition.settlement_currency}, not in {new.currency}.", "currency")
    latest = await tx.one(sql.latest_contract, partner_id=partner_id, currency=new.currency)
    if latest is not None and latest["valid_from"] >= new.valid_from:
        told = f"A contract from {latest['valid_from']} is published already; a new one must begin later than that."
        raise StateConflict(told).at("validFrom")
    contract_id = new_id()
    await tx.run(
        sql.store_contract,
        contract_id=contract_id,
        partner_id=partner_id,
        programme_id=programme.id,
        currency=new.currency,
        version=latest["version"] + 1 if latest else 1,
        valid_from=new.valid_from,
        earn_rate_numerator=new.earn_rate.numerator,
        earn_rate_denominator=new.earn_rate.denominator,
        issue_price=new.issue_price,
        redeem_price=new.redeem_price,
        service_fee=new.service_fee,
        conversion_price=new.conversion_price,
        pending_days=new.pending_days,
    )
    return contract_id


PENDING_DAYS_MAX = 365


def _check_pending(days: int | None) -> None:
    if days is not None and not 0 <= days <= PENDING_DAYS_MAX:
        raise InputNotAccepted(f"pendingDays is {days}; it must be between 0 and {PENDING_DAYS_MAX}.", "pendingDays")


async def set_programme_terms(
    tx: Tx, programme: Programme, pending_days: int, spend_most: int | None, spend_most_a_day: int | None, transferable: bool
) -> None:
    """Change from when and how a programme's points can be spent; what was earned before stays as it was.

    Limits are in whole points, None: no limit. Raises InputNotAccepted.
    """
    _check_pending(pending_days)
    for name, limit in (("spendMost", spend_most), ("spendMostADay", spend_most_a_day)):
        if limit is not None and not 0 < limit <= MAX_POINTS:
            raise InputNotAccepted(f"{name} is {limit}; it must be at least 1.", name)
    await tx.run(
        sql.set_programme_terms,
        programme_id=programme.id,
        pending_days=pending_days,
        spend_most=spend_most,
        spend_most_a_day=spend_most_a_day,
        transferable=transferable,
    )


def _check_prices(new: NewContract) -> None:
    if len(new.currency) != 3 or not new.currency.isascii() or not new.currency.isupper():
        raise InputNotAccepted(f"{new.currency!r} is not a currency code such as USD.", "currency")
    if not 0 <= new.earn_rate <= 1_000 or new.earn_rate.denominator > 1_000_000:
        raise InputNotAccepted(f"The earn rate {new.earn_rate} is not between 0 and 1000.", "earnRate")
    prices = {
        "issuePrice": new.issue_price,
        "redeemPrice": new.redeem_price,
        "serviceFee": new.service_fee,
        "conversionPrice": new.conversion_price,
    }
    for name, price in prices.items():
        if not price.is_finite() or not 0 <= price <= 1_000_000:
            raise InputNotAccepted(f"{name} is {price}; it must be between 0 and 1000000.", name)


async def publish_rate(tx: Tx, coalition: Coalition, new: NewRate) -> UUID:
    """Publish a conversion rate from a moment on and answer its id.

    Raises ProgrammeUnknown, RateNotOffered, InputNotAccepted, NotAllowed, StateConflict.
    """
    source, target = coalition.programme_by_code(new.source, "from"), coalition.programme_by_code(new.target, "to")
    if source.id == target.id:
        raise RateNotOffered(source.code, target.code)
    if source.custody != "ledger" or target.custody != "partner":
        raise NotAllowed("Points convert from a programme on this ledger into one that a partner keeps.").at("to")
    for name in ("take", "give", "minimum", "increment"):
        if not 0 < getattr(new, name) <= MAX_POINTS:
            raise InputNotAccepted(f"{name} is {getattr(new, name)}; it must be at least 1.", name)
    rate_id: UUID | None = await tx.value(
        sql.store_rate,
        rate_id=new_id(),
        source_id=source.id,
        target_id=target.id,
        take=new.take,
        give=new.give,
        minimum=new.minimum,
        increment=new.increment,
        valid_from=new.valid_from,
    )
    if rate_id is None:
        raise StateConflict(f"A rate from {new.valid_from.isoformat()} on is published already.").at("validFrom")
    return rate_id


async def onboard_from_files(tx: Tx, described: list[NewPartner], now: datetime) -> None:
    """Onboard partners with their stores, and publish those of their contracts that are not published yet.

    Raises NotOnboarded, which says whose description was refused.
    """
    partner_ids: list[UUID] = []
    for new in described:
        try:
            partner_ids.append(await onboard_partner(tx, new, now))
        except Refused as refused:
            raise NotOnboarded(new.code, None, refused) from None
    coalition = await read_coalition(tx)
    for partner_id, new in zip(partner_ids, described, strict=True):
        for position, contract in sorted(enumerate(new.contracts), key=lambda each: each[1].valid_from):
            published = coalition.contracts.get((partner_id, contract.currency), ())
            before = next((c for c in published if c.valid_from == contract.valid_from), None)
            try:
                if before is None:
                    await publish_contract(tx, coalition, partner_id, contract)
                else:
                    _check_unchanged(contract, before)
            except Refused as refused:
                raise NotOnboarded(new.code, position, refused) from None


def _check_unchanged(new: NewContract, before: Contract) -> None:
    """What is published stays as it is: purchases were reckoned by it. Raises StateConflict."""
    for name in ("earn_rate", "issue_price", "redeem_price", "service_fee", "conversion_price", "pending_days"):
        was, said = getattr(before, name), getattr(new, name)
        if was != said:
            told = f"The contract from {before.valid_from} is published with {name} {was}, not {said}; publish a later one."
            raise StateConflict(told).at(re.sub(r"_(\w)", lambda letter: letter[1].upper(), name))
