"""Refusals: the expected "no". Each is a class with a code, and its docstring is its sentence."""

from enum import Enum
from typing import ClassVar, Self
from uuid import UUID


class RefusalCode(Enum):
    """Why something was refused; the codes of the GraphQL contract."""

    MEMBER_UNKNOWN = "MEMBER_UNKNOWN"
    MEMBERSHIP_SUSPENDED = "MEMBERSHIP_SUSPENDED"
    CARD_BLOCKED = "CARD_BLOCKED"
    STORE_UNKNOWN = "STORE_UNKNOWN"
    PROGRAMME_UNKNOWN = "PROGRAMME_UNKNOWN"
    RECEIPT_UNKNOWN = "RECEIPT_UNKNOWN"
    RECEIPT_ALREADY_POSTED = "RECEIPT_ALREADY_POSTED"
    RETURN_EXCEEDS_PURCHASE = "RETURN_EXCEEDS_PURCHASE"
    INSUFFICIENT_POINTS = "INSUFFICIENT_POINTS"
    HOLD_NOT_OPEN = "HOLD_NOT_OPEN"
    HOLD_EXPIRED = "HOLD_EXPIRED"
    CAPTURE_EXCEEDS_HOLD = "CAPTURE_EXCEEDS_HOLD"
    RATE_NOT_OFFERED = "RATE_NOT_OFFERED"
    QUOTE_EXPIRED = "QUOTE_EXPIRED"
    QUOTE_USED = "QUOTE_USED"
    BELOW_MINIMUM = "BELOW_MINIMUM"
    NOT_IN_INCREMENT = "NOT_IN_INCREMENT"
    DAILY_LIMIT_REACHED = "DAILY_LIMIT_REACHED"
    TRANSACTION_LIMIT_EXCEEDED = "TRANSACTION_LIMIT_EXCEEDED"
    REVERSAL_EXCEEDS_REDEMPTION = "REVERSAL_EXCEEDS_REDEMPTION"
    HOLD_UNKNOWN = "HOLD_UNKNOWN"
    REDEMPTION_UNKNOWN = "REDEMPTION_UNKNOWN"
    ADJUSTMENT_UNKNOWN = "ADJUSTMENT_UNKNOWN"
    PARTNER_UNAVAILABLE = "PARTNER_UNAVAILABLE"
    IDEMPOTENCY_KEY_REUSED = "IDEMPOTENCY_KEY_REUSED"
    PERIOD_NOT_OPEN = "PERIOD_NOT_OPEN"
    OCCURRED_IN_FUTURE = "OCCURRED_IN_FUTURE"
    OCCURRED_TOO_LONG_AGO = "OCCURRED_TOO_LONG_AGO"
    AMOUNT_NOT_ACCEPTED = "AMOUNT_NOT_ACCEPTED"
    CURRENCY_NOT_ACCEPTED = "CURRENCY_NOT_ACCEPTED"
    INPUT_NOT_ACCEPTED = "INPUT_NOT_ACCEPTED"
    BATCH_TOO_LARGE = "BATCH_TOO_LARGE"
    CREDIT_LIMIT_REACHED = "CREDIT_LIMIT_REACHED"
    FILES_NOT_WRITTEN = "FILES_NOT_WRITTEN"
    NOT_ALLOWED = "NOT_ALLOWED"
    STATE_CONFLICT = "STATE_CONFLICT"


TOLD_MAX = 500


def _cut(detail: object) -> object:
    """What is said back of what was sent."""
    text = str(detail)
    return detail if len(text) <= TOLD_MAX else f"{text[:TOLD_MAX]}..."


class Refused(Exception):
    """Base of every refusal: a code, a sentence for a person, and the input path it is about. `member_id`: who is refused, where
    that was known; what was done in time for who may not any more is still the answer to its key."""

    code: ClassVar[RefusalCode]
    path: tuple[str, ...] = ()
    member_id: UUID | None = None

    def __init__(self, *details: object) -> None:
        super().__init__(*details)
        self.message = " ".join((self.__doc__ or "").split()).format(*map(_cut, details))

    def of(self, member_id: UUID) -> Self:
        """The same refusal, of a member."""
        self.member_id = member_id
        return self

    def at(self, *path: str) -> Self:
        """The same refusal, about another field of the input."""
        self.path = path
        return self


class MemberUnknown(Refused):
    """No member is known to this partner by {0}."""

    code = RefusalCode.MEMBER_UNKNOWN
    path = ("member",)


class MembershipSuspended(Refused):
    """The membership is suspended; nothing can be posted to it."""

    code = RefusalCode.MEMBERSHIP_SUSPENDED
    path = ("member",)


class CardBlocked(Refused):
    """The card {0} is blocked."""

    code = RefusalCode.CARD_BLOCKED
    path = ("member", "card")


class StoreUnknown(Refused):
    """This partner has no store {0!r}."""

    code = RefusalCode.STORE_UNKNOWN
    path = ("store",)


class ProgrammeUnknown(Refused):
    """There is no programme {0!r} in this coalition."""

    code = RefusalCode.PROGRAMME_UNKNOWN
    path = ("programme",)


class ReceiptUnknown(Refused):
    """This partner has posted no purchase with the receipt {0!r}."""

    code = RefusalCode.RECEIPT_UNKNOWN
    path = ("receipt",)


class ReceiptAlreadyPosted(Refused):
    """A purchase with the receipt {0!r} was posted before, under another idempotency key."""

    code = RefusalCode.RECEIPT_ALREADY_POSTED
    path = ("receipt",)


class ReturnExceedsPurchase(Refused):
    """The return is larger than what is left of the purchase: {0}."""

    code = RefusalCode.RETURN_EXCEEDS_PURCHASE
    path = ("total",)


class InsufficientPoints(Refused):
    """The member has fewer available points than {0}."""

    code = RefusalCode.INSUFFICIENT_POINTS
    path = ("points",)


class TransactionLimitExceeded(Refused):
    """{0} points are more than this programme lets a member spend at once."""

    code = RefusalCode.TRANSACTION_LIMIT_EXCEEDED
    path = ("points",)


class DailyLimitReached(Refused):
    """{0} points more would exceed what this programme lets a member spend a day."""

    code = RefusalCode.DAILY_LIMIT_REACHED
    path = ("points",)


class CreditLimitReached(Refused):
    """The partner's credit with the coalition is used up; points can be issued again once it has paid."""

    code = RefusalCode.CREDIT_LIMIT_REACHED


class HoldUnknown(Refused):
    """There is no such hold of this partner."""

    code = RefusalCode.HOLD_UNKNOWN
    path = ("hold",)


class HoldNotOpen(Refused):
    """The hold was captured or released before; nothing of it is left."""

    code = RefusalCode.HOLD_NOT_OPEN
    path = ("hold",)


class HoldExpired(Refused):
    """The time of the hold is over; its points went back to the member."""

    code = RefusalCode.HOLD_EXPIRED
    path = ("hold",)


class CaptureExceedsHold(Refused):
    """{0} points are more than what is left of the hold."""

    code = RefusalCode.CAPTURE_EXCEEDS_HOLD
    path = ("points",)


class RedemptionUnknown(Refused):
    """There is no such redemption at this partner."""

    code = RefusalCode.REDEMPTION_UNKNOWN
    path = ("redemption",)


class ReversalExceedsRedemption(Refused):
    """{0} left of the redemption."""

    code = RefusalCode.REVERSAL_EXCEEDS_REDEMPTION
    path = ("points",)


class WalletFull(Refused):
    """The wallet would hold more than 9007199254740991 points, or has had so many that they cannot be counted."""

    code = RefusalCode.AMOUNT_NOT_ACCEPTED
    path = ("points",)


class RecipientUnknown(Refused):
    """Nobody has the card {0}."""

    code = RefusalCode.MEMBER_UNKNOWN
    path = ("card",)


class NotTransferable(Refused):
    """Points of this programme cannot be transferred."""

    code = RefusalCode.NOT_ALLOWED
    path = ("programme",)


class AdjustmentUnknown(Refused):
    """There is no such adjustment."""

    code = RefusalCode.ADJUSTMENT_UNKNOWN
    path = ("adjustment",)


class RateNotOffered(Refused):
    """No conversion from {0} to {1} is offered at this time."""

    code = RefusalCode.RATE_NOT_OFFERED
    path = ("to",)


class QuoteUnknown(Refused):
    """There is no such quote for this member."""

    code = RefusalCode.QUOTE_EXPIRED
    path = ("quote",)


class QuoteExpired(Refused):
    """The quote ran out at {0}; ask for a new one."""

    code = RefusalCode.QUOTE_EXPIRED
    path = ("quote",)


class QuoteUsed(Refused):
    """The quote was used before; one quote serves one conversion."""

    code = RefusalCode.QUOTE_USED
    path = ("quote",)


class BelowMinimum(Refused):
    """The smallest amount that converts is {0} points."""

    code = RefusalCode.BELOW_MINIMUM
    path = ("take",)


class NotInIncrement(Refused):
    """Points convert in steps of {0}."""

    code = RefusalCode.NOT_IN_INCREMENT
    path = ("take",)


class PartnerUnavailable(Refused):
    """{0} cannot be asked now; nothing was taken. Try again with the same idempotency key."""

    code = RefusalCode.PARTNER_UNAVAILABLE


class IdempotencyKeyReused(Refused):
    """The idempotency key {0!r} was used before with other content; use a new key for a new request."""

    code = RefusalCode.IDEMPOTENCY_KEY_REUSED
    path = ("idempotencyKey",)


class PeriodNotOpen(Refused):
    """No settlement period from {0} on is open."""

    code = RefusalCode.PERIOD_NOT_OPEN
    path = ("occurredAt",)


class OccurredInFuture(Refused):
    """The time {0} lies in the future."""

    code = RefusalCode.OCCURRED_IN_FUTURE
    path = ("occurredAt",)


class OccurredTooLongAgo(Refused):
    """The time {0} lies more than {1} days back, which this coalition no longer accepts."""

    code = RefusalCode.OCCURRED_TOO_LONG_AGO
    path = ("occurredAt",)


class AmountNotAccepted(Refused):
    """{0}"""

    code = RefusalCode.AMOUNT_NOT_ACCEPTED
    path = ("total", "amount")


class CurrencyNotAccepted(Refused):
    """This partner has no contract in {0}."""

    code = RefusalCode.CURRENCY_NOT_ACCEPTED
    path = ("total", "currency")


class OtherCurrency(Refused):
    """The purchase was made in {0}, not in {1}."""

    code = RefusalCode.CURRENCY_NOT_ACCEPTED
    path = ("total", "currency")


class BeforeContract(Refused):
    """This partner's first contract in {0} begins on {1}, and this happened on {2}."""

    code = RefusalCode.CURRENCY_NOT_ACCEPTED
    path = ("occurredAt",)


class InputNotAccepted(Refused):
    """{0}"""

    code = RefusalCode.INPUT_NOT_ACCEPTED

    def __init__(self, sentence: str, *path: str) -> None:
        super().__init__(sentence)
        self.path = path


class BatchTooLarge(Refused):
    """The batch has {0} items; up to {1} are accepted at once. Nothing was posted."""

    code = RefusalCode.BATCH_TOO_LARGE


class NotAllowed(Refused):
    """{0}"""

    code = RefusalCode.NOT_ALLOWED


class FilesNotWritten(Refused):
    """The month {0} is closed, and its files could not be written ({1}). Close it again when the gateway's data folder takes
    them."""

    code = RefusalCode.FILES_NOT_WRITTEN


class StateConflict(Refused):
    """{0}"""

    code = RefusalCode.STATE_CONFLICT
