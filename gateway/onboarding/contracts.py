"""A partner's prices from a day on."""

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

from gateway.coalition.catalogue import Coalition, Contract
from gateway.database import Tx
from gateway.ids import new_id
from gateway.onboarding.programmes import check_pending, sql
from gateway.refusals import InputNotAccepted, StateConflict

# A year that was mistyped would bar every other contract until then, since each begins later than the one before.
AHEAD_MAX = timedelta(days=3 * 366)


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


async def publish_contract(tx: Tx, coalition: Coalition, partner_id: UUID, new: NewContract, now: datetime) -> UUID:
    """Publish prices from a day on, AHEAD_MAX from now at most, and answer the contract's id; earlier ones stay as they were.

    Raises ProgrammeUnknown, InputNotAccepted, StateConflict when it does not begin after the one before.
    """
    programme = coalition.programme_by_code(new.programme)
    _check_prices(new)
    check_pending(new.pending_days)
    if programme.custody != "ledger":
        raise InputNotAccepted(
            f"{programme.code} is kept by its own partner; contracts are in a programme of this ledger.", "programme"
        )
    if new.currency != coalition.settlement_currency:
        raise InputNotAccepted(f"This coalition settles in {coalition.settlement_currency}, not in {new.currency}.", "currency")
    if new.valid_from > (latest_day := coalition.day_of(now) + AHEAD_MAX):
        told = f"A contract from {new.valid_from} on is published too early; it may begin on {latest_day} at the latest."
        raise InputNotAccepted(told, "validFrom")
    latest = await tx.one(sql.latest_contract, partner_id=partner_id, currency=new.currency)
    if latest is not None and latest["valid_from"] >= new.valid_from:
        told = f"A contract from {latest['valid_from']} is published already; a new one must begin later than that."
        raise StateConflict(told).at("validFrom")
    contract_id: UUID | None = await tx.value(
        sql.store_contract,
        contract_id=new_id(),
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
    if contract_id is None:
        raise StateConflict("Another contract of this partner is published at this moment; look at it first.").at("validFrom")
    return contract_id


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


def check_unchanged(new: NewContract, before: Contract) -> None:
    """What is published stays as it is: purchases were reckoned by it. Raises StateConflict."""
    for name in ("earn_rate", "issue_price", "redeem_price", "service_fee", "conversion_price", "pending_days"):
        was, said = getattr(before, name), getattr(new, name)
        if was != said:
            told = f"The contract from {before.valid_from} is published with {name} {was}, not {said}; publish a later one."
            raise StateConflict(told).at(re.sub(r"_(\w)", lambda letter: letter[1].upper(), name))
