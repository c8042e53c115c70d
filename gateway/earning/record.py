"""Recording purchases: find the member, apply the contract's rules, post."""

import asyncio
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec

from gateway.coalition.catalogue import Coalition, Contract, Partner
from gateway.database import Database, Tx
from gateway.earning.purchases import TEXT_MAX, Purchase, PurchaseLine, purchase_line, purchases_by_id
from gateway.earning.rules import points_of
from gateway.ledger.items import Answer, Earning, Key, Terms
from gateway.ledger.post import Ledger
from gateway.ledger.refused import first_answers, keys_of_refused, refusal_of
from gateway.members.lookup import MemberLookup, MemberRef, Membership, find_memberships
from gateway.points import MAX_POINTS, BadAmount, Money, minor_of_decimal
from gateway.refusals import (
    AmountNotAccepted,
    BatchTooLarge,
    BeforeContract,
    CurrencyNotAccepted,
    InputNotAccepted,
    Refused,
    StoreUnknown,
    WalletFull,
)
from gateway.replay import digest
from gateway.texts import check_text

BATCH_MAX = 1_000
LINES_MAX = LINES_AT_ONCE = 1_000
LINES_OF_PRICE = 10
"""What a purchase takes without its lines, in lines."""


class PurchaseRequest(msgspec.Struct, frozen=True):
    """What a till sends; `amount` is exact and in major units, `occurred_at` has an offset."""

    idempotency_key: str
    member: MemberRef
    receipt: str
    store: str | None
    occurred_at: datetime
    amount: Decimal
    currency: str
    lines: tuple[tuple[str | None, str | None, Decimal, Decimal], ...] = ()


class _Priced(msgspec.Struct, frozen=True):
    """A request that passed every check, ready to post."""

    request: PurchaseRequest
    terms: Terms
    amount_minor: int
    points: int
    store_id: UUID | None
    lines: tuple[PurchaseLine, ...]


async def record_purchases(
    database: Database, members: MemberLookup, ledger: Ledger, coalition: Coalition, partner: Partner,
    requests: Sequence[PurchaseRequest], now: datetime,
) -> list[Purchase | Refused]:  # fmt: skip
    """Post up to BATCH_MAX purchases of one partner; each has its own outcome, in order.

    Raises BatchTooLarge, and then nothing is posted; Busy, DatabaseAway.
    """
    if len(requests) > BATCH_MAX:
        raise BatchTooLarge(len(requests), BATCH_MAX)
    book: _TermsBook = {}
    priced, keys, lines = [], [], 0
    for request in requests:
        priced.append(_price(coalition, partner, book, request, now))
        keys.append(Key(partner.id, request.idempotency_key, _digest(request)))
        lines += LINES_OF_PRICE + len(request.lines)
        if lines >= LINES_AT_ONCE:
            await asyncio.sleep(0)  # others have their turn
            lines = 0
    memberships = await members.find(partner.id, [request.member for request in requests])
    items = [_item(p, m, key) for p, m, key in zip(priced, memberships, keys, strict=True)]
    first, later = keys_of_refused(keys, items)
    again = await first_answers(ledger, first)
    posted = iter(await ledger.earn([item for item in items if isinstance(item, Earning)]))
    again |= await first_answers(ledger, later)
    outcomes: list[Purchase | Refused | UUID] = []
    for n, (item, p) in enumerate(zip(items, priced, strict=True)):
        answer = next(posted) if isinstance(item, Earning) else again.get(n)
        if answer is None:
            assert isinstance(item, Refused)
            outcomes.append(item)
        else:
            outcomes.append(_outcome(answer, requests[n], item, p))
    return await _load_replayed(database, outcomes)


async def simulate_purchase(tx: Tx, coalition: Coalition, partner: Partner, request: PurchaseRequest, now: datetime) -> Earning:
    """What a purchase would post now; nothing is posted. Raises what recording it would refuse before the ledger."""
    priced = _price(coalition, partner, {}, request, now)
    (membership,) = await find_memberships(tx, partner.id, [request.member])
    for answer in (priced, membership):
        if isinstance(answer, Refused):
            raise answer
    item = _item(priced, membership, Key(partner.id, request.idempotency_key, b""))
    if isinstance(item, Refused):
        raise item
    return item


_TermsBook = dict[tuple[str, date], Terms | Refused]


def _terms(coalition: Coalition, partner: Partner, book: _TermsBook, currency: str, day: date) -> Terms:
    """The terms of the contract in force, worked out once a request for each day. Raises CurrencyNotAccepted, BeforeContract."""
    terms = book.get((currency, day))
    if terms is None:
        contract = coalition.contract_of(partner.id, currency, day)
        if contract is not None:
            terms = earning_terms(coalition, contract, day)
        else:
            begins = coalition.contracts_begin(partner.id, currency)
            terms = CurrencyNotAccepted(currency) if begins is None else BeforeContract(currency, begins, day)
        book[currency, day] = terms
    if isinstance(terms, Refused):
        raise terms
    return terms


def earning_terms(coalition: Coalition, contract: Contract, day: date) -> Terms:
    """What everything that is earned under a contract on one day shares."""
    programme = coalition.programmes[contract.programme_id]
    wait = programme.pending_days if contract.pending_days is None else contract.pending_days
    return Terms(
        partner_id=contract.partner_id,
        programme_id=programme.id,
        contract_id=contract.id,
        currency=contract.currency,
        month=day.replace(day=1),
        issue_price=contract.issue_price,
        expires_on=programme.expires_on(day),
        matures_on=day + timedelta(days=wait) if wait else None,
        on_credit=coalition.partners[contract.partner_id].on_credit,
    )


def _price(
    coalition: Coalition, partner: Partner, book: _TermsBook, request: PurchaseRequest, now: datetime
) -> _Priced | Refused:
    """Check everything that needs no look-up of the member, and apply the rules."""
    try:
        check_text(request.idempotency_key, "idempotencyKey", 200)
        check_text(request.receipt, "receipt", TEXT_MAX)
        day = coalition.check_occurred(request.occurred_at, now)
        amount_minor = _minor(request.amount)
        lines = _lines(request) if request.lines else ()
        terms = _terms(coalition, partner, book, request.currency, day)
        store = coalition.stores.get((partner.id, request.store)) if request.store is not None else None
        if request.store is not None and store is None:
            raise StoreUnknown(request.store)
        contract = coalition.contracts_by_id[terms.contract_id]
        points = points_of(contract, amount_minor)
        if points > MAX_POINTS:
            raise AmountNotAccepted("The amount would bring more points than one transaction can hold.")
    except Refused as refused:
        return refused
    return _Priced(request, terms, amount_minor, points, store.id if store else None, lines)


def _minor(amount: Decimal) -> int:
    try:
        return minor_of_decimal(amount)
    except BadAmount as error:
        raise AmountNotAccepted(str(error)) from None


def _lines(request: PurchaseRequest) -> tuple[PurchaseLine, ...]:
    if len(request.lines) > LINES_MAX:
        raise InputNotAccepted(f"A purchase has at most {LINES_MAX} lines, not {len(request.lines)}.", "lines")
    return tuple(purchase_line(position, *line) for position, line in enumerate(request.lines))


def _item(priced: _Priced | Refused, membership: Membership | Refused, key: Key) -> Earning | Refused:
    if isinstance(priced, Refused):
        return priced
    if isinstance(membership, Refused):
        return membership
    return Earning(
        key=key,
        terms=priced.terms,
        member_id=membership.member_id,
        membership_id=membership.id,
        occurred_at=priced.request.occurred_at,
        points=priced.points,
        receipt=priced.request.receipt,
        store_id=priced.store_id,
        amount_minor=priced.amount_minor,
        lines=msgspec.json.encode(priced.lines).decode() if priced.lines else None,
    )


def _digest(request: PurchaseRequest) -> bytes:
    return digest("purchase", (
        request.member.kind, request.member.text, request.receipt, request.store, request.occurred_at,
        request.amount.normalize(), request.currency,
        [(sku, category, quantity.normalize(), amount.normalize()) for sku, category, quantity, amount in request.lines],
    ))  # fmt: skip


def _outcome(
    answer: Answer, request: PurchaseRequest, item: Earning | Refused, priced: _Priced | Refused
) -> Purchase | Refused | UUID:
    """The purchase; the id of the first one for a replay, to be loaded; or the refusal."""
    if answer.refusal is not None:
        month = item.terms.month if isinstance(item, Earning) else None
        refused = refusal_of(answer.refusal, key=request.idempotency_key, receipt=request.receipt, month=month)
        return refused.at("total", "amount") if isinstance(refused, WalletFull) else refused
    assert answer.transaction_id is not None
    if answer.replayed:
        return answer.transaction_id
    assert isinstance(item, Earning)
    assert isinstance(priced, _Priced)
    assert answer.posted_at is not None
    assert answer.period is not None
    terms = item.terms
    assert terms.expires_on is not None
    return Purchase(
        id=answer.transaction_id,
        member_id=item.member_id,
        membership_id=item.membership_id,
        partner_id=terms.partner_id,
        programme_id=terms.programme_id,
        contract_id=terms.contract_id,
        store_id=item.store_id,
        receipt=item.receipt,
        total=Money(item.amount_minor, terms.currency),
        points=item.points,
        expires_on=terms.expires_on,
        occurred_at=item.occurred_at,
        posted_at=answer.posted_at,
        period=answer.period,
        missed_period=terms.month if answer.period != terms.month else None,
        matures_on=terms.matures_on if item.points else None,
        lines=priced.lines,
    )


async def _load_replayed(database: Database, outcomes: list[Purchase | Refused | UUID]) -> list[Purchase | Refused]:
    replayed = [outcome for outcome in outcomes if isinstance(outcome, UUID)]
    loaded: dict[UUID, Purchase] = {}
    if replayed:
        async with database.reading() as tx:
            loaded = await purchases_by_id(tx, replayed)
    return [loaded[outcome] if isinstance(outcome, UUID) else outcome for outcome in outcomes]
