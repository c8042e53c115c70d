"""A partner's credit: what it may owe for issued points before it pays; a limit of zero means that it prepays."""

import unicodedata
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.database import Row, Tx
from gateway.refusals import IdempotencyKeyReused, InputNotAccepted, StateConflict
from gateway.statements import load_queries
from gateway.texts import check_text

sql = load_queries(__file__)

KEY_MAX = 200
REFERENCE_MAX = 128
# A dash to who types it, a symbol to Unicode.
MINUS = "\u2212"


@dataclass(frozen=True, slots=True)
class Payment:
    """What a partner paid, in minor units; `owner_id` is the operator who notes it, and owns the key."""

    owner_id: UUID
    idempotency_key: str
    partner_id: UUID
    amount_minor: int
    reference: str | None


def runs_short(row: Row) -> bool:
    """Whether a partner has used so much of its limit, or, where it prepays, of what it paid last, that it should pay."""
    used, percent = row["used"], row["warn_percent"]
    if row["limit_minor"] > 0:
        return bool(used * 100 >= row["limit_minor"] * percent)
    return bool(-used * 100 <= row["last_paid_minor"] * (100 - percent))


async def set_credit(tx: Tx, partner_id: UUID, limit_minor: int, warn_percent: int, now: datetime) -> None:
    """Set what a partner may owe; what it has used of its credit so far stays used. Raises InputNotAccepted."""
    if not 1 <= warn_percent <= 100:
        raise InputNotAccepted(f"warnPercent is {warn_percent}; it must be between 1 and 100.", "warnPercent")
    await tx.post(sql.set_credit, partner=partner_id, limit_minor=limit_minor, warn_percent=warn_percent, at=now)


def plain_reference(text: str) -> str:
    """A bank's reference without what differs from one copy of it to another: blanks, capitals, how its letters are encoded and
    which dash it has. Nothing else is left out: dates with and without a dash are two references."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return "".join("-" if char == MINUS or unicodedata.category(char) == "Pd" else char for char in plain if not char.isspace())


async def pay(tx: Tx, payment: Payment, now: datetime) -> None:
    """Note a payment once a key, and once a reference. Raises InputNotAccepted, IdempotencyKeyReused, StateConflict."""
    key = check_text(payment.idempotency_key, "idempotencyKey", KEY_MAX)
    reference = " ".join(payment.reference.split()) if payment.reference is not None else None
    if reference is not None:
        check_text(reference, "reference", REFERENCE_MAX)
    plain = plain_reference(reference) if reference is not None else None
    if payment.amount_minor == 0:
        raise InputNotAccepted("A payment is more than 0.00.", "amount")
    if await tx.one(sql.credit_of, partner=payment.partner_id) is None:
        raise InputNotAccepted("The partner has no credit limit; set one first.", "partner")
    (is_new,) = await tx.post(
        sql.pay_credit,
        owner=payment.owner_id,
        key=key,
        partner=payment.partner_id,
        amount_minor=payment.amount_minor,
        reference=reference,
        plain=plain,
        at=now,
    )
    if is_new is None:
        first = await tx.one(sql.payment_by_reference, partner=payment.partner_id, plain=plain)
        assert first is not None
        day = f"{first['paid_at']:%Y-%m-%d}"
        told = f"A payment of this partner with the reference {first['reference']!r} is noted already, on {day}."
        raise StateConflict(told).at("reference")
    if is_new:
        return
    known = await tx.one(sql.credit_payment, owner=payment.owner_id, key=key)
    assert known is not None
    if (known["partner_id"], known["amount_minor"], known["plain"]) != (payment.partner_id, payment.amount_minor, plain):
        raise IdempotencyKeyReused(key)
