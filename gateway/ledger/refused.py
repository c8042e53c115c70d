"""Turns the refusal codes of posting functions into refusals."""

from gateway.ledger.post import Answer, Earning, Redemption, Return
from gateway.refusals import (
    IdempotencyKeyReused,
    InsufficientPoints,
    PeriodNotOpen,
    ReceiptAlreadyPosted,
    Refused,
)


def refusal_of(answer: Answer, item: Earning | Return | Redemption) -> Refused | None:
    """The refusal that the ledger gave an item, None when it was accepted."""
    match answer.refusal:
        case None:
            return None
        case "IDEMPOTENCY_KEY_REUSED":
            return IdempotencyKeyReused(item.key.text)
        case "PERIOD_NOT_OPEN":
            return PeriodNotOpen(item.month)
        case "INSUFFICIENT_POINTS":
            return InsufficientPoints(item.points)
        case "RECEIPT_ALREADY_POSTED" if isinstance(item, Earning):
            return ReceiptAlreadyPosted(item.receipt)
    raise AssertionError(f"The ledger gave an unknown refusal: {answer.refusal}")
