"""Points and money: whole numbers, exact decimals, and every rounding by its name."""

from decimal import Decimal, InvalidOperation
from fractions import Fraction

import msgspec

MAX_POINTS = 2**53 - 1
MINOR_DIGITS = 2
MAX_AMOUNT_MINOR = 10**14


class BadAmount(ValueError):
    """An amount of money that cannot be read exactly; its text says what is wrong."""


class Money(msgspec.Struct, frozen=True):
    """`amount_minor` in minor units (cents) of `currency` (ISO 4217)."""

    amount_minor: int
    currency: str

    @property
    def amount(self) -> str:
        return decimal_of_minor(self.amount_minor)


def decimal_of_minor(amount_minor: int) -> str:
    """Minor units as a decimal string: 1234 -> "12.34"."""
    major, minor = divmod(abs(amount_minor), 10**MINOR_DIGITS)
    return f"{'-' if amount_minor < 0 else ''}{major}.{minor:0{MINOR_DIGITS}}"


def minor_of_decimal(amount: Decimal) -> int:
    """An exact decimal amount in minor units; nothing is rounded.

    Raises BadAmount when the amount is negative, too large or has too many decimals.
    """
    if not amount.is_finite():
        raise BadAmount(f"{amount} is not an amount of money.")
    if amount < 0:
        raise BadAmount(f"The amount {amount} is negative; amounts are zero or more.")
    if amount >= Decimal(MAX_AMOUNT_MINOR).scaleb(-MINOR_DIGITS):
        raise BadAmount(f"The amount {amount:f} is too large; the largest is 999999999999.99.")
    minor = amount.scaleb(MINOR_DIGITS)
    if minor != minor.to_integral_value():
        raise BadAmount(f"The amount {amount} has more than {MINOR_DIGITS} decimals.")
    return int(minor)


def read_decimal(text: str) -> Decimal:
    """A plain decimal such as "12.34"; raises BadAmount for anything else, exponents included."""
    if len(text) > 27 or not text.isascii() or set(text) - set("0123456789.-"):
        raise BadAmount(f"{text[:60]!r} is not a decimal number such as 12.34.")
    try:
        return Decimal(text)
    except InvalidOperation:
        raise BadAmount(f"{text!r} is not a decimal number such as 12.34.") from None


def points_for(amount_minor: int, rate: Fraction) -> int:
    """Points that an amount brings at `rate` points per 1.00, rounded down to whole points."""
    return amount_minor * rate.numerator // (100 * rate.denominator)


def round_half_even_minor(amount_major: Fraction) -> int:
    """An exact amount in major units, rounded half-even to minor units: the one rounding of a statement line."""
    minor: int = round(amount_major * 10**MINOR_DIGITS)
    return minor
