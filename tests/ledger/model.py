"""A ledger small enough to believe: what members hold, in memory, and what each movement of points must answer.

Points are whole; a lot is a last day and a funder, in the order in which lots are spent. Every verb answers the code
of its refusal, or None and then it happened.
"""

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from fractions import Fraction
from uuid import UUID

Lot = tuple[date, UUID]
"""A last day and a funder, each of which has one contract: in this order lots are spent."""
Lots = dict[Lot, int]

RATES = {"grocer": Fraction(1), "fuel": Fraction(1, 2)}
"""Points per 1.00."""
ALONE_A_DAY = 1_000
CONVERTED_AT_ONCE = 200


@dataclass
class Purchase:
    member: str
    partner: str
    cents: int
    points: int
    lot: Lot
    charged: bool
    unripe: int = 0
    ripens: date | None = None


@dataclass
class Hold:
    lots: Lots
    until: datetime
    day: date
    counted: bool


@dataclass
class Overdraft:
    """What a return claimed beyond what its funder's own lots gave, when, and whether its purchase was on credit."""

    funder: UUID
    points: int
    charged: bool
    at: datetime


@dataclass
class Member:
    """`covering` is what each funder's lots gave to debts and to returns of others; `borne` what funders bear of `owed`, on credit
    and not."""

    lots: Lots = field(default_factory=dict)
    owed: int = 0
    overdrafts: list[Overdraft] = field(default_factory=list)
    covering: dict[UUID, int] = field(default_factory=dict)
    borne: dict[tuple[UUID, bool], int] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    redemptions: dict[str, tuple[Lots, date]] = field(default_factory=dict)
    spent: dict[date, int] = field(default_factory=dict)
    converted: int = 0

    def put(self, lot: Lot, points: int) -> None:
        self.lots[lot] = self.lots.get(lot, 0) + points

    def take(self, points: int, today: date, first: Lot | None = None) -> Lots:
        """Up to so many points, first-expiring first; `first` goes before all others."""
        taken: Lots = {}
        for lot in sorted(self.lots, key=lambda each: (each != first, each)):
            if lot[0] >= today or lot == first:
                part = min(points, self.lots[lot])
                if part:
                    taken[lot] = part
                    self.lots[lot] -= part
                    points -= part
        return taken

    def spendable(self, today: date, first: Lot | None = None) -> int:
        return sum(points for lot, points in self.lots.items() if lot[0] >= today or lot == first)

    def repay(self, today: date) -> None:
        """What is owed is repaid out of what is there."""
        for lot, points in self.take(self.owed, today).items():
            self.owed -= points
            self.give(lot, points)

    def give(self, lot: Lot, points: int) -> None:
        self.covering[lot[1]] = self.covering.get(lot[1], 0) + points

    def place_debts(self) -> None:
        """What a funder's lots covered is its own overdrafts first, the oldest first; of what is left the latest are owed."""
        covering, still = dict(self.covering), []
        for each in sorted(self.overdrafts, key=lambda each: (each.at, each.charged)):
            covered = min(covering.get(each.funder, 0), each.points)
            covering[each.funder] = covering.get(each.funder, 0) - covered
            still.append((each, each.points - covered))
        still.sort(key=lambda left: (-left[0].at.timestamp(), left[0].funder, not left[0].charged))
        self.borne, owed = {}, self.owed
        for each, points in still:
            share = min(points, owed)
            owed -= share
            if share:
                whose = each.funder, each.charged
                self.borne[whose] = self.borne.get(whose, 0) + share
        assert owed == 0

    def settle(self, today: date) -> None:
        """What is over expires; what is owed is repaid out of what is there."""
        self.lots = {lot: points for lot, points in self.lots.items() if lot[0] >= today}
        self.repay(today)

    def uncount(self, day: date, points: int) -> None:
        if day in self.spent:
            self.spent[day] = max(self.spent[day] - points, 0)


@dataclass
class Terms:
    """What the operator sets, for all members: the programme's terms, the grocer's credit, and adjustments made alone."""

    pending_days: int = 0
    most: int | None = None
    most_a_day: int | None = None
    within_balance: bool = False
    credit: int | None = None
    used: int = 0
    alone: list[tuple[datetime, int]] = field(default_factory=list)


class Books:
    """The members' points, as `terms` say."""

    def __init__(self, terms: Terms, members: list[str], now: datetime) -> None:
        self.terms, self.now = terms, now
        self.members = {name: Member() for name in members}
        self.purchases: dict[str, Purchase] = {}

    @property
    def today(self) -> date:
        return self.now.date()

    def buy(self, receipt: str, member: str, partner: str, cents: int, on: date, lot: Lot) -> str | None:
        if receipt in self.purchases:
            return "RECEIPT_ALREADY_POSTED"
        points = cents * RATES[partner] // 100
        charged = partner == "grocer" and self.terms.credit is not None
        if charged:
            assert self.terms.credit is not None
            if points and self.terms.used + points > self.terms.credit:
                return "CREDIT_LIMIT_REACHED"
            self.terms.used += points  # a point of the grocer costs a cent
        bought = self.purchases[receipt] = Purchase(member, partner, cents, points, lot, charged)
        holder = self.members[member]
        if self.terms.pending_days and points:
            bought.unripe, bought.ripens = points, on + timedelta(days=self.terms.pending_days)
        else:
            repaid = min(points, holder.owed)
            holder.owed -= repaid
            holder.give(lot, repaid)
            holder.put(lot, points - repaid)
        return None

    def points_of_return(self, receipt: str, cents: int) -> int:
        bought = self.purchases[receipt]
        return bought.points - int((bought.cents - cents) * RATES[bought.partner] // 100)

    def give_back(self, receipt: str, cents: int) -> str | None:
        bought = self.purchases[receipt]
        if cents > bought.cents:
            return "RETURN_EXCEEDS_PURCHASE"
        points = self.points_of_return(receipt, cents)
        unripe = min(points, bought.unripe)
        holder = self.members[bought.member]
        if self.terms.within_balance and holder.spendable(self.today, bought.lot) < points - unripe:
            return "INSUFFICIENT_POINTS"
        bought.unripe -= unripe
        funder, missing, overdrawn = bought.lot[1], points - unripe, points - unripe
        for lot, part in holder.take(missing, self.today, bought.lot).items():
            missing -= part
            if lot[1] == funder:
                overdrawn -= part
            else:
                holder.give(lot, part)
        holder.owed += missing
        if overdrawn:
            holder.overdrafts.append(Overdraft(funder, overdrawn, bought.charged, self.now))
        if missing:
            holder.borne[funder, bought.charged] = holder.borne.get((funder, bought.charged), 0) + missing
        bought.cents, bought.points = bought.cents - cents, bought.points - points
        self.terms.used -= points - missing if bought.charged else 0
        return None

    def place_debts(self) -> None:
        """A point of the grocer, the only one on credit, costs a cent."""
        for holder in self.members.values():
            before = sum(points for (_, charged), points in holder.borne.items() if charged)
            holder.place_debts()
            self.terms.used += sum(points for (_, charged), points in holder.borne.items() if charged) - before

    def _take(self, member: str, points: int) -> tuple[str | None, Lots]:
        """Points that a member spends, within the limits of a transaction and a day."""
        holder, most, most_a_day = self.members[member], self.terms.most, self.terms.most_a_day
        spent = holder.spent.get(self.today, 0)
        if points > holder.spendable(self.today):
            return "INSUFFICIENT_POINTS", {}
        if most is not None and points > most:
            return "TRANSACTION_LIMIT_EXCEEDED", {}
        if most_a_day is not None:
            if spent + points > most_a_day:
                return "DAILY_LIMIT_REACHED", {}
            holder.spent[self.today] = spent + points
        return None, holder.take(points, self.today)

    def redeem(self, member: str, points: int, id: str) -> str | None:
        refusal, taken = self._take(member, points)
        if refusal is None:
            self.members[member].redemptions[id] = (taken, self.today)
        return refusal

    def hold(self, member: str, points: int, until: datetime, id: str) -> str | None:
        refusal, taken = self._take(member, points)
        if refusal is None:
            self.members[member].holds[id] = Hold(taken, until, self.today, self.terms.most_a_day is not None)
        return refusal

    def capture(self, member: str, hold_id: str, points: int, id: str) -> str | None:
        holder = self.members[member]
        hold = holder.holds[hold_id]
        if points > sum(hold.lots.values()):
            return "CAPTURE_EXCEEDS_HOLD"
        taken: Lots = {}
        for lot in sorted(hold.lots):
            taken[lot] = min(points, hold.lots[lot])
            hold.lots[lot] -= taken[lot]
            points -= taken[lot]
        holder.redemptions[id] = (taken, hold.day)
        if not any(hold.lots.values()):
            del holder.holds[hold_id]
        return None

    def release(self, member: str, hold_id: str) -> None:
        holder = self.members[member]
        hold = holder.holds.pop(hold_id)
        for lot, points in hold.lots.items():
            holder.put(lot, points)
        if hold.counted:
            holder.uncount(hold.day, sum(hold.lots.values()))
        holder.settle(self.today)

    def reverse(self, member: str, id: str, points: int) -> str | None:
        holder = self.members[member]
        taken, day = holder.redemptions[id]
        if points > sum(taken.values()):
            return "REVERSAL_EXCEEDS_REDEMPTION"
        holder.uncount(day, points)
        for lot in sorted(taken, reverse=True):
            part = min(points, taken[lot])
            taken[lot] -= part
            holder.put(lot, part)
            points -= part
        holder.settle(self.today)
        return None

    def transfer(self, member: str, other: str, points: int) -> str | None:
        refusal, taken = self._take(member, points)
        for lot, part in taken.items():
            self.members[other].put(lot, part)
        self.members[other].repay(self.today)
        return refusal

    def adjust(self, member: str, points: int, lot: Lot) -> str | None:
        """Answers AWAITING_APPROVAL for what one operator may not do alone."""
        holder, alone = self.members[member], self.terms.alone
        yesterday = self.now - timedelta(days=1)
        that_day = sum(abs(p) for at, p in alone if at > yesterday and (p > 0) == (points > 0)) + abs(points)
        if that_day > ALONE_A_DAY:
            return "AWAITING_APPROVAL"
        if -points > holder.spendable(self.today):
            return "INSUFFICIENT_POINTS"
        alone.append((self.now, points))
        if points > 0:
            holder.put(lot, points)
            holder.repay(self.today)
        else:
            holder.take(-points, self.today)
        return None

    def convert(self, member: str, points: int, refused: bool) -> str | None:
        """Points for half as many of the other programme; where its partner refuses them they go back."""
        refusal = self.hold(member, points, self.now, "conversion")
        if refusal is None and refused:
            self.release(member, "conversion")
        elif refusal is None:
            del self.members[member].holds["conversion"]
            self.members[member].converted += points // 2
        return refusal

    def time_passes(self, days: int) -> None:
        """The day's jobs: what is ripe matures, holds run out, what is over expires."""
        self.now += timedelta(days=days)
        for name, holder in self.members.items():
            for bought in self.purchases.values():
                if bought.member == name and bought.ripens is not None and bought.ripens <= self.today:
                    holder.put(bought.lot, bought.unripe)
                    bought.unripe, bought.ripens = 0, None
            holder.repay(self.today)
            for id in [id for id, hold in holder.holds.items() if hold.until <= self.now]:
                self.release(name, id)
            holder.settle(self.today)

    def lots(self, member: str) -> Lots:
        """What is left in each lot that is not empty."""
        return {lot: points for lot, points in self.members[member].lots.items() if points}

    def standing(self, member: str) -> tuple[int, int, int, int, int]:
        """Available, pending, held, owed, and what was converted, in points of the other programme."""
        holder = self.members[member]
        unripe = sum(p.unripe for p in self.purchases.values() if p.member == member)
        held = sum(sum(hold.lots.values()) for hold in holder.holds.values())
        return sum(holder.lots.values()), unripe, held, holder.owed, holder.converted
