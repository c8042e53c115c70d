"""Turns the refusal codes of posting functions into refusals."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date
from uuid import UUID

from gateway.ledger.items import Answer, Key
from gateway.ledger.post import Ledger
from gateway.refusals import (
    CaptureExceedsHold,
    CreditLimitReached,
    DailyLimitReached,
    HoldExpired,
    HoldNotOpen,
    IdempotencyKeyReused,
    InsufficientPoints,
    NotTransferable,
    PeriodNotOpen,
    ReceiptAlreadyPosted,
    Refused,
    ReversalExceedsRedemption,
    TransactionLimitExceeded,
    WalletFull,
)


def refusal_of(code: str, key: str = "", points: int = 0, month: date | None = None, receipt: str = "") -> Refused:
    """The refusal behind a code, in words that name what was asked for."""
    fewer = f"Fewer than {points} points are" if points else "No points are"
    refusals: dict[str, Refused] = {
        "IDEMPOTENCY_KEY_REUSED": IdempotencyKeyReused(key),
        "PERIOD_NOT_OPEN": PeriodNotOpen(month),
        "INSUFFICIENT_POINTS": InsufficientPoints(points),
        "RECEIPT_ALREADY_POSTED": ReceiptAlreadyPosted(receipt),
        "TRANSACTION_LIMIT_EXCEEDED": TransactionLimitExceeded(points),
        "DAILY_LIMIT_REACHED": DailyLimitReached(points),
        "CREDIT_LIMIT_REACHED": CreditLimitReached(),
        "HOLD_NOT_OPEN": HoldNotOpen(),
        "HOLD_EXPIRED": HoldExpired(),
        "CAPTURE_EXCEEDS_HOLD": CaptureExceedsHold(points),
        "REVERSAL_EXCEEDS_REDEMPTION": ReversalExceedsRedemption(fewer),
        "NOT_ALLOWED": NotTransferable(),
        "WALLET_FULL": WalletFull(),
    }
    return refusals[code]


async def first_answers(ledger: Ledger, refused: Mapping[int, Key]) -> dict[int, Answer]:
    """A request refused before it reached the ledger may still be the repetition of one that was answered there.

    `refused` are the keys of such requests by their positions; answers the kept answers of those that have one, which
    are to be given instead. Raises DatabaseAway.
    """
    if not refused:
        return {}
    kept = await ledger.kept(list(refused.values()))
    return {position: answer for position, answer in zip(refused, kept, strict=True) if answer is not None}


def accepted(answer: Answer, key: Key, points: int) -> UUID:
    """What an answer posted. Raises its refusal, if it is one."""
    if answer.refusal is not None:
        raise refusal_of(answer.refusal, key=key.text, points=points)
    assert answer.transaction_id is not None
    return answer.transaction_id


async def post_once(ledger: Ledger, key: Key, points: int, post: Callable[[], Awaitable[UUID]]) -> UUID:
    """Post something by itself, under its key, and answer what was posted: now, or when the key was first used.

    Raises what `post` refuses; DatabaseAway.
    """
    try:
        return await ledger.once(key, post)
    except Refused as refused:
        return accepted(await first_answer(ledger, key, refused), key, points)


async def first_answer(ledger: Ledger, key: Key, refused: Refused) -> Answer:
    """The kept answer to one request that is refused now. Raises `refused` where there is none."""
    kept = (await first_answers(ledger, {0: key})).get(0)
    if kept is None:
        raise refused
    return kept


def keys_of_refused(keys: Sequence[Key], items: Sequence[object]) -> tuple[dict[int, Key], dict[int, Key]]:
    """The keys of those requests that are refusals already, by their positions: first those whose key nothing before them
    has, whose answer is looked for before the others are posted, and those that come after an item of their key."""
    first: dict[int, Key] = {}
    later: dict[int, Key] = {}
    posted: set[str] = set()
    for n, (key, item) in enumerate(zip(keys, items, strict=True)):
        if not isinstance(item, Refused):
            posted.add(key.text)
        else:
            (later if key.text in posted else first)[n] = key
    return first, later
