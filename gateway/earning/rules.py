"""The rules that turn a purchase into points, and the trace they leave."""


import msgspec

from gateway.coalition.catalogue import Contract
from gateway.points import decimal_of_minor, points_for


class EarningStep(msgspec.Struct, frozen=True):
    """One rule's share of an earning: why these points were given, and who pays for them."""

    rule: str
    version: int
    condition: str
    amount: str
    multiplier: str
    rounding: str
    points: int
    funder: str


def points_of(contract: Contract, amount_minor: int) -> int:
    """The whole points that an amount brings: what the steps of `apply_rules` add up to."""
    return points_for(amount_minor, contract.earn_rate)


def apply_rules(contract: Contract, partner_code: str, amount_minor: int) -> tuple[EarningStep, ...]:
    """The steps of an earning; their points add up to what the member gets.

    The base rate is the contract's `earn_rate` in points per 1.00, rounded down to whole points once a purchase.
    """
    return (
        EarningStep(
            rule="base rate",
            version=contract.version,
            condition="every purchase",
            amount=decimal_of_minor(amount_minor),
            multiplier=str(contract.earn_rate),
            rounding="down",
            points=points_of(contract, amount_minor),
            funder=partner_code,
        ),
    )
