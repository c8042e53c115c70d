"""What a month comes to: a pure function of its sums and the contracts. One rounding a line, half-even to the cent."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

from gateway.coalition.catalogue import Contract
from gateway.points import round_half_even_minor


@dataclass(frozen=True, slots=True)
class Sum:
    """What the entries of one kind, account, partner and contract add up to; `points` as the members' wallets see it."""

    kind: str
    programme_id: UUID
    account: str
    partner_id: UUID
    contract_id: UUID
    points: int
    transactions: int
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Line:
    """One charge: `debtor_id` owes `creditor_id` (None: the coalition) `gross_minor`.

    `unit_price` is per point in major units; for a fee it is the share of the issue charge.
    """

    kind: str
    debtor_id: UUID | None
    creditor_id: UUID | None
    programme_id: UUID
    contract_id: UUID
    points: int
    unit_price: Decimal
    gross_minor: int
    currency: str


@dataclass(slots=True)
class Statement:
    """A partner's month: counts, points, lines, and what the partner owes net (negative: is owed)."""

    partner_id: UUID
    currency: str
    purchases: int = 0
    amount_minor: int = 0
    issued: int = 0
    returns: int = 0
    returned: int = 0
    redemptions: int = 0
    redeemed: int = 0
    conversions: int = 0
    converted_out: int = 0
    converted_in: int = 0
    lines: list[Line] = field(default_factory=list)

    @property
    def net_minor(self) -> int:
        return sum(line.gross_minor if line.debtor_id == self.partner_id else -line.gross_minor for line in self.lines)


def settle(partners: Sequence[UUID], currency: str, sums: Iterable[Sum], contracts: dict[UUID, Contract]) -> list[Statement]:
    """The statements of a month in the clearing model, one a partner, in the order of `partners`.

    Issuers pay the coalition when points are issued, the coalition pays redeemers, and an airline what it credited.
    The fee is a share of the exact issue charge less returns, and is rounded once like every other line.
    """
    statements = {partner: Statement(partner, currency) for partner in partners}
    by_contract: dict[tuple[UUID, UUID], list[Sum]] = {}
    for s in sums:
        _count(statements[s.partner_id], s)
        by_contract.setdefault((s.partner_id, s.contract_id), []).append(s)
    ordered = sorted(by_contract.items(), key=lambda item: (item[0][0], contracts[item[0][1]].version))
    for (partner_id, contract_id), group in ordered:
        statements[partner_id].lines += _lines(partner_id, contracts[contract_id], group)
    return [statements[partner] for partner in partners]


def _count(statement: Statement, s: Sum) -> None:
    match s.kind, s.account:
        case "earning", "funder":
            statement.purchases += s.transactions
            statement.amount_minor += s.amount_minor
            statement.issued += s.points
        case "return", "funder":
            statement.returns += s.transactions
            statement.returned -= s.points
        case "redemption", "redeemer":
            statement.redemptions += s.transactions
            statement.redeemed -= s.points
        case "conversion", "custody":
            statement.conversions += s.transactions
            statement.converted_in -= s.points
        case "conversion", "exchange" if s.points < 0:
            statement.converted_out -= s.points


def _lines(partner_id: UUID, contract: Contract, group: list[Sum]) -> list[Line]:
    def points(kind: str, account: str) -> int:
        return abs(sum(s.points for s in group if (s.kind, s.account) == (kind, account)))

    issued, returned = points("earning", "funder"), points("return", "funder")
    redeemed, credited = points("redemption", "redeemer"), points("conversion", "custody")
    reversed_ = points("reversal", "redeemer")
    target = next((s.programme_id for s in group if s.account == "custody"), contract.programme_id)
    # Fractions: a Decimal would round silently beyond 28 digits.
    issue, redeem = Fraction(contract.issue_price), Fraction(contract.redeem_price)
    fee = (issued - returned) * issue * Fraction(contract.service_fee)
    by_partner, to_partner = (partner_id, None), (None, partner_id)
    own = contract.programme_id
    drafts = [
        ("issue", by_partner, own, issued, contract.issue_price, issued * issue),
        ("return", to_partner, own, returned, contract.issue_price, returned * issue),
        ("fee", by_partner if fee >= 0 else to_partner, own, issued - returned, contract.service_fee, abs(fee)),
        ("redeem", to_partner, own, redeemed, contract.redeem_price, redeemed * redeem),
        ("reversal", by_partner, own, reversed_, contract.redeem_price, reversed_ * redeem),
        ("conversion", to_partner, target, credited, contract.conversion_price, credited * Fraction(contract.conversion_price)),
    ]
    return [
        Line(kind, debtor, creditor, programme_id, contract.id, count, price, round_half_even_minor(gross), contract.currency)
        for kind, (debtor, creditor), programme_id, count, price, gross in drafts
        if count
    ]


@dataclass(frozen=True, slots=True)
class Position:
    """What a party (None: the coalition) owes net in a period, in minor units; negative: is owed."""

    party_id: UUID | None
    net_minor: int
    currency: str


def positions(statements: Sequence[Statement], currency: str) -> list[Position]:
    """Netted multilaterally: one position a party; with the coalition's they sum to zero."""
    each = [Position(s.partner_id, s.net_minor, currency) for s in statements]
    return [*each, Position(None, -sum(p.net_minor for p in each), currency)]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a programme stood at the end of a period: whole points that members hold, owe, and lost by expiry in it."""

    programme_id: UUID
    outstanding: int
    debt: int
    expired: int


@dataclass(frozen=True, slots=True)
class Settled:
    """A settled month."""

    month: date
    currency: str
    statements: list[Statement]
    standings: list[Standing]
