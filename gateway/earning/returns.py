"""Returns: what comes back of a purchase, whole, by amount or by line, and the points that go with it."""

from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from gateway.coalition.catalogue import Coalition, Partner
from gateway.database import Database, Row, Tx
from gateway.earning.purchases import TEXT_MAX, Purchase, PurchaseLine, purchase_line, purchases_by_receipt, sql
from gateway.earning.rules import points_of
from gateway.ids import bucket_of
from gateway.ledger.items import Answer, Key, Return, Terms
from gateway.ledger.post import Ledger
from gateway.ledger.refused import first_answer, refusal_of
from gateway.points import BadAmount, Money, decimal_of_minor, minor_of_decimal
from gateway.refusals import (
    AmountNotAccepted,
    InputNotAccepted,
    OtherCurrency,
    ReceiptUnknown,
    Refused,
    ReturnExceedsPurchase,
    StateConflict,
)
from gateway.replay import digest
from gateway.texts import check_text

TRIES = 20


@dataclass(frozen=True, slots=True)
class ReturnRequest:
    """What a till sends: the receipt, and how much of it comes back; neither total nor lines: all that is left."""

    idempotency_key: str
    receipt: str
    occurred_at: datetime
    total: tuple[Decimal, str] | None = None
    lines: tuple[tuple[str | None, str | None, Decimal, Decimal], ...] = ()


@dataclass(frozen=True, slots=True)
class PurchaseReturn:
    """A posted return: `points` taken back, of which `owed` were not there any more."""

    id: UUID
    purchase_id: UUID
    member_id: UUID
    partner_id: UUID
    programme_id: UUID
    total: Money
    points: int
    owed: int
    occurred_at: datetime
    posted_at: datetime
    period: date
    missed_period: date | None


async def return_purchase(
    database: Database, ledger: Ledger, coalition: Coalition, partner: Partner, request: ReturnRequest, now: datetime
) -> PurchaseReturn:
    """Take back what a return brings back; the member keeps the points that the rest would have brought.

    Raises ReceiptUnknown, ReturnExceedsPurchase, InputNotAccepted, OtherCurrency, AmountNotAccepted,
    InsufficientPoints (where the programme's refund policy is within_balance), IdempotencyKeyReused,
    OccurredInFuture, OccurredTooLongAgo, PeriodNotOpen; Busy, DatabaseAway.
    """
    key = Key(partner.id, request.idempotency_key, _digest(request))
    try:
        answer = await _post(database, ledger, coalition, partner, request, key, now)
    except Refused as refused:
        answer = await first_answer(ledger, key, refused)
        if answer.refusal == refused.code.value:
            raise
        if answer.refusal is not None:
            raise refusal_of(answer.refusal, key=key.text) from None
    assert answer.transaction_id is not None
    async with database.reading() as tx:
        found = await returns_by_id(tx, [answer.transaction_id])
    return found[answer.transaction_id]


async def _post(
    database: Database, ledger: Ledger, coalition: Coalition, partner: Partner, request: ReturnRequest, key: Key, now: datetime
) -> Answer:
    check_text(request.idempotency_key, "idempotencyKey", 200)
    check_text(request.receipt, "receipt", TEXT_MAX)
    day = coalition.check_occurred(request.occurred_at, now)
    async with ledger.one_at_a_time(partner.id, request.receipt):
        return await _post_in_turn(database, ledger, coalition, partner, request, key, day)


async def _post_in_turn(
    database: Database, ledger: Ledger, coalition: Coalition, partner: Partner, request: ReturnRequest, key: Key, day: date
) -> Answer:
    """Work out and post; another process may return the same purchase meanwhile, and then it is worked out again."""
    for _ in range(TRIES):
        async with database.reading() as tx:
            purchase = (await purchases_by_receipt(tx, partner.id, [request.receipt])).get(request.receipt)
            if purchase is None:
                raise ReceiptUnknown(request.receipt)
            returned = await _returned_lines(tx, purchase) if request.lines else Counter[tuple[str, str]]()
        if request.occurred_at < purchase.occurred_at:
            raise InputNotAccepted("The return happened before its purchase.", "occurredAt")
        lines = tuple(purchase_line(n, *line) for n, line in enumerate(request.lines))
        amount_minor = _amount(request, purchase, lines, returned)
        item = Return(
            key=key,
            terms=_terms(coalition, purchase, day),
            member_id=purchase.member_id,
            purchase_id=purchase.id,
            version=purchase.returns,
            occurred_at=request.occurred_at,
            amount_minor=amount_minor,
            points=_points(coalition, purchase, amount_minor),
            lines=msgspec.json.encode(lines).decode() if lines else None,
        )
        answer = (await ledger.take_back([item]))[0]
        if answer.refusal == "STALE":
            continue
        if answer.refusal is not None:
            raise refusal_of(answer.refusal, key=key.text, points=item.points, month=item.terms.month)
        return answer
    raise StateConflict("The purchase is being returned by many requests at once; try again with the same key.")


def _terms(coalition: Coalition, purchase: Purchase, day: date) -> Terms:
    """A return happens under the contract of its purchase, on its own day."""
    contract = coalition.contracts_by_id[purchase.contract_id]
    return Terms(
        partner_id=purchase.partner_id,
        programme_id=purchase.programme_id,
        contract_id=contract.id,
        currency=contract.currency,
        month=day.replace(day=1),
        issue_price=contract.issue_price,
        day=day,
    )


def _points(coalition: Coalition, purchase: Purchase, amount_minor: int) -> int:
    """Points to take back: what the member still has of the purchase, less what its rest would have brought."""
    contract = coalition.contracts_by_id[purchase.contract_id]
    rest_minor = purchase.total.amount_minor - purchase.returned_minor - amount_minor
    return purchase.points - purchase.returned_points - points_of(contract, rest_minor)


def _amount(
    request: ReturnRequest, purchase: Purchase, lines: tuple[PurchaseLine, ...], returned: Counter[tuple[str, str]]
) -> int:
    """Minor units that come back. Raises ReturnExceedsPurchase and what else is wrong with the request."""
    left = purchase.total.amount_minor - purchase.returned_minor
    if left == 0 and purchase.returns > 0:
        raise ReturnExceedsPurchase("all of it was returned before")
    if request.total is None and not lines:
        return left
    amount_minor = sum(line.amount_minor for line in lines)
    if request.total is not None:
        amount, currency = request.total
        if currency != purchase.total.currency:
            raise OtherCurrency(purchase.total.currency, currency)
        try:
            total_minor = minor_of_decimal(amount)
        except BadAmount as error:
            raise AmountNotAccepted(str(error)) from None
        if lines and total_minor != amount_minor:
            raise InputNotAccepted(f"The lines come to {decimal_of_minor(amount_minor)}, the total says {amount}.", "total")
        amount_minor = total_minor
    if amount_minor > left:
        raise ReturnExceedsPurchase(f"{decimal_of_minor(left)} of it is left")
    if amount_minor == 0 and left > 0:
        raise AmountNotAccepted("A return of 0.00 brings nothing back.")
    _check_lines(purchase, lines, returned)
    return amount_minor


def _check_lines(purchase: Purchase, lines: tuple[PurchaseLine, ...], returned: Counter[tuple[str, str]]) -> None:
    if lines and not purchase.lines:
        raise InputNotAccepted("The purchase was posted without lines; return it by its total.", "lines")
    left = _amounts(purchase.lines)
    left.subtract(returned)
    left.subtract(_amounts(lines))
    for (sku, category), amount_minor in left.items():
        if amount_minor < 0:
            what = sku or category or "lines without sku"
            raise ReturnExceedsPurchase(f"{what}: {decimal_of_minor(-amount_minor)} more than was bought")


def _amounts(lines: tuple[PurchaseLine, ...]) -> Counter[tuple[str, str]]:
    """Minor units by (sku, category)."""
    amounts: Counter[tuple[str, str]] = Counter()
    for line in lines:
        amounts[line.sku or "", line.category or ""] += line.amount_minor
    return amounts


async def _returned_lines(tx: Tx, purchase: Purchase) -> Counter[tuple[str, str]]:
    rows = await tx.all(sql.returned_lines, bucket=bucket_of(purchase.id), purchase=purchase.id)
    returned: Counter[tuple[str, str]] = Counter()
    for row in rows:
        returned.update(_amounts(msgspec.json.decode(row["lines"], type=tuple[PurchaseLine, ...])))
    return returned


def _digest(request: ReturnRequest) -> bytes:
    total = (request.total[0].normalize(), request.total[1]) if request.total else None
    lines = [(sku, category, quantity.normalize(), amount.normalize()) for sku, category, quantity, amount in request.lines]
    return digest("return", (request.receipt, request.occurred_at, total, lines))


async def returns_by_id(tx: Tx, transactions: list[UUID]) -> dict[UUID, PurchaseReturn]:
    """Posted returns by their ids."""
    rows = await tx.all(sql.returns_by_id, buckets=[bucket_of(id) for id in transactions], transactions=transactions)
    return {row["transaction_id"]: _return_of(row) for row in rows}


def _return_of(row: Row) -> PurchaseReturn:
    return PurchaseReturn(
        id=row["transaction_id"],
        purchase_id=row["purchase_id"],
        member_id=row["member_id"],
        partner_id=row["partner_id"],
        programme_id=row["programme_id"],
        total=Money(row["amount_minor"], row["currency"]),
        points=row["points"],
        owed=row["owed"],
        occurred_at=row["occurred_at"],
        posted_at=row["posted_at"],
        period=row["period"],
        missed_period=row["missed_period"],
    )
