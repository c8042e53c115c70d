"""Purchases as they are recorded: what the till said, what it brought, what came back since."""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from gateway.coalition.catalogue import Coalition
from gateway.database import Row, Tx
from gateway.earning.rules import EarningStep, apply_rules
from gateway.ids import bucket_of
from gateway.points import BadAmount, Money, minor_of_decimal
from gateway.refusals import (
    InputNotAccepted,
)
from gateway.statements import load_queries
from gateway.texts import check_text

sql = load_queries(__file__)

TEXT_MAX = 128


class PurchaseLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a receipt; `amount_minor` is what the line cost in all."""

    amount_minor: int
    sku: str | None = None
    category: str | None = None
    quantity: Decimal = Decimal(1)


class Purchase(msgspec.Struct, frozen=True):
    """A recorded purchase and the earning it brought; both have the same id inside.

    Its points become available on `matures_on`, None: at once.
    """

    id: UUID
    member_id: UUID
    membership_id: UUID
    partner_id: UUID
    programme_id: UUID
    contract_id: UUID
    store_id: UUID | None
    receipt: str
    total: Money
    points: int
    expires_on: date
    occurred_at: datetime
    posted_at: datetime
    period: date
    missed_period: date | None
    matures_on: date | None
    lines: tuple[PurchaseLine, ...] = ()
    returned_minor: int = 0
    returned_points: int = 0
    returns: int = 0


def purchase_line(position: int, sku: str | None, category: str | None, quantity: Decimal, amount: Decimal) -> PurchaseLine:
    """A checked line. Raises InputNotAccepted, naming the line."""
    for name, text in (("sku", sku), ("category", category)):
        if text is not None:
            check_text(text, name, TEXT_MAX, "lines", str(position))
    if not quantity.is_finite() or not 0 <= quantity <= 10**9:
        raise InputNotAccepted(f"The quantity {quantity} is not between 0 and 1000000000.", "lines", str(position), "quantity")
    try:
        return PurchaseLine(minor_of_decimal(amount), sku, category, quantity.normalize() + 0)
    except BadAmount as error:
        raise InputNotAccepted(str(error), "lines", str(position), "amount") from None


def explain(coalition: Coalition, purchase: Purchase) -> tuple[EarningStep, ...]:
    """The rules that gave a purchase its points; they follow from its contract's version and its amount."""
    contract = coalition.contracts_by_id[purchase.contract_id]
    return apply_rules(contract, coalition.partners[purchase.partner_id].code, purchase.total.amount_minor)


async def purchases_by_id(tx: Tx, transactions: Sequence[UUID]) -> dict[UUID, Purchase]:
    """Recorded purchases by their ids; unknown ones are left out."""
    rows = await tx.all(sql.purchases_by_id, buckets=[bucket_of(id) for id in transactions], transactions=list(transactions))
    return {row["transaction_id"]: purchase_of(row) for row in rows}


async def purchases_by_receipt(tx: Tx, partner_id: UUID, receipts: Sequence[str]) -> dict[str, Purchase]:
    """A partner's recorded purchases by the receipts of its tills."""
    rows = await tx.all(sql.purchases_by_receipt, partner=partner_id, receipts=list(receipts))
    return {row["receipt"]: purchase_of(row) for row in rows}


def purchase_of(row: Row) -> Purchase:
    return Purchase(
        id=row["transaction_id"],
        member_id=row["member_id"],
        membership_id=row["membership_id"],
        partner_id=row["partner_id"],
        programme_id=row["programme_id"],
        contract_id=row["contract_id"],
        store_id=row["store_id"],
        receipt=row["receipt"],
        total=Money(row["amount_minor"], row["currency"]),
        points=row["points"],
        expires_on=row["expires_on"],
        occurred_at=row["occurred_at"],
        posted_at=row["posted_at"],
        period=row["period"],
        missed_period=row["missed_period"],
        matures_on=row["matures_on"],
        lines=msgspec.json.decode(row["lines"], type=tuple[PurchaseLine, ...]) if row["lines"] else (),
        returned_minor=row["returned_minor"],
        returned_points=row["returned_points"],
        returns=row["returns"],
    )
