"""What is posted: the items of a batch, the terms that they share, and the ledger's answer to each."""

from collections.abc import Hashable
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from gateway.ids import bucket_of


class Answer(msgspec.Struct, frozen=True):
    """What the ledger said of one item: its transaction (a hold's is the hold) with the period it went to, or the
    code of its refusal; `replayed` if it was the first answer to its key, given again, without the first times."""

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


class Terms(msgspec.Struct, frozen=True):
    """What many items share: parties, prices and dates, all as the contract in force gives them.

    `month` is that of the event in the coalition's time zone. `issue_price` is in major units per point, for the
    partner's credit. Of an earning `expires_on` and `matures_on` (None: at once) say when its points run out and
    become available; of what takes points `day` says which lots can still be taken, and `today`, the ledger's own day,
    which day's spending limit it counts against. `on_credit`: the partner's purchases use up a credit.
    """

    partner_id: UUID
    programme_id: UUID
    contract_id: UUID
    currency: str
    month: date
    issue_price: Decimal
    expires_on: date | None = None
    matures_on: date | None = None
    day: date | None = None
    today: date | None = None
    on_credit: bool = False


class Earning(msgspec.Struct, frozen=True):
    """A purchase and the whole points it brings."""

    key: Key
    terms: Terms
    member_id: UUID
    membership_id: UUID
    occurred_at: datetime
    points: int
    receipt: str
    store_id: UUID | None
    amount_minor: int
    lines: str | None


class Return(msgspec.Struct, frozen=True):
    """What comes back of a purchase; `version` is the number of returns it had when `points` was worked out."""

    key: Key
    terms: Terms
    member_id: UUID
    purchase_id: UUID
    version: int
    occurred_at: datetime
    amount_minor: int
    points: int
    lines: str | None


class Redemption(msgspec.Struct, frozen=True):
    """Points spent at a partner; lots that run out before the terms' day are not touched."""

    key: Key
    terms: Terms
    member_id: UUID
    membership_id: UUID
    occurred_at: datetime
    points: int
    reference: str | None


class Hold(msgspec.Struct, frozen=True):
    """Points to set aside until `expires_at`."""

    key: Key
    terms: Terms
    member_id: UUID
    membership_id: UUID
    points: int
    expires_at: datetime
    reference: str | None


class Capture(msgspec.Struct, frozen=True):
    """Points to redeem out of a hold; None: all that is left of it."""

    key: Key
    terms: Terms
    member_id: UUID
    hold_id: UUID
    occurred_at: datetime
    points: int | None
    reference: str | None


Item = Earning | Return | Redemption | Hold | Capture


def bucket_of_item(item: Item) -> int:
    return bucket_of(item.member_id)


def lane_of_earning(item: Earning) -> int:
    """By bucket, but what uses up one partner's credit stays in one lane: it goes to purchases in their order."""
    return item.terms.partner_id.int if item.terms.on_credit else bucket_of_item(item)


def name_of_key(owner_id: UUID, key: str) -> Hashable:
    """What has a key to itself."""
    return "key", owner_id, key


def names_of(item: Item) -> tuple[Hashable, ...]:
    """What nothing else under way may have: an item's key, a purchase's receipt."""
    key = name_of_key(item.key.owner_id, item.key.text)
    return (key, ("receipt", item.terms.partner_id, item.receipt)) if isinstance(item, Earning) else (key,)


def turns_of(item: Item) -> tuple[Hashable, ...]:
    """What items of one request use up in their order: a wallet, and a partner's credit."""
    return (wallet_of(item), item.terms.partner_id) if item.terms.on_credit else (wallet_of(item),)


def wallet_of(item: Item) -> tuple[int, int]:
    """A member's wallet in a programme, as numbers, which are hashed ten times as fast as ids."""
    return item.member_id.int, item.terms.programme_id.int


def owner_of(item: Item) -> int:
    """Who wants it: the partner, or the member in whose name a partner acts. As a number, which is hashed ten times as fast."""
    return item.key.owner_id.int
