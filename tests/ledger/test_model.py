"""Random sequences of everything that moves points, by two members, against a model small enough to believe."""

import asyncio
import os
from calendar import monthrange
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from gateway import ids
from tests.adjustment.test_adjust import ADJUST
from tests.points import TRANSFER, capture, codes, hold, mint, release, reverse, run_job, terms
from tests.world import Place, World, open_world

STEPS = int(os.environ.get("MODEL_STEPS", "30"))
RUNS = int(os.environ.get("MODEL_RUNS", "6"))
PENDING_DAYS = 3
ALONE_A_DAY = 1_000
RATES = {"grocer": Fraction(1), "fuel": Fraction(1, 2)}
"""Points per 1.00."""

Lot = tuple[date, UUID]
"""A last day and a funder, each of which has one contract: in this order lots are spent."""
Lots = dict[Lot, int]


@dataclass
class Purchase:
    member: str
    partner: str
    cents: int
    points: int
    lot: Lot
    unripe: int
    ripens: date | None


@dataclass
class Member:
    lots: Lots = field(default_factory=dict)
    owed: int = 0
    holds: dict[str, Lots] = field(default_factory=dict)
    redemptions: dict[str, Lots] = field(default_factory=dict)

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

    def spendable(self, today: date) -> int:
        return sum(points for (day, _), points in self.lots.items() if day >= today)

    def settle(self, today: date) -> None:
        """What is over expires; what is owed is repaid out of what is there."""
        self.lots = {lot: points for lot, points in self.lots.items() if lot[0] >= today}
        self.owed -= sum(self.take(self.owed, today).values())


async def test_random_sequences_agree_with_a_small_model(place: Place) -> None:
    """The gateway runs on this loop; Hypothesis, which is synchronous, drives it from a thread."""
    loop = asyncio.get_running_loop()
    async with open_world(place, jobs=()) as world:
        await asyncio.to_thread(_run, _machine(world, loop))


def _run(machine: type[RuleBasedStateMachine]) -> None:
    quiet = settings(max_examples=RUNS, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=quiet)  # type: ignore[no-untyped-call]


def _machine(world: World, loop: asyncio.AbstractEventLoop) -> type[RuleBasedStateMachine]:
    def wait(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)

    async def member_id(name: str) -> Any:
        return (await world.sql("select member_id from card where number = $1", f"C-{name}"))[0]["member_id"]

    async def operator_id() -> Any:
        return (await world.sql("select account_id from account where login = 'olga'"))[0]["account_id"]

    who = st.sampled_from(["a", "b"])
    where = st.sampled_from(["grocer", "fuel"])
    funders: dict[str, UUID] = {}
    # What the operator, who is the same in every run, has given (+) and taken (-) alone, and when.
    alone: list[tuple[datetime, int]] = []

    class Points(RuleBasedStateMachine):
        """Two members of their own a run."""

        def __init__(self) -> None:
            super().__init__()
            self.run = next(world.numbers)
            self.members = {"a": Member(), "b": Member()}
            self.purchases: dict[str, Purchase] = {}
            self.waiting = False
            funders.update((row["code"], row["partner_id"]) for row in wait(world.sql("select code, partner_id from partner")))
            world.tokens.clear()
            world.tokens["operator"] = wait(mint(world, "operator", wait(operator_id())))
            wait(terms(world, pendingDays=0))
            for member in self.members:
                for partner, verb, kind in (
                    ("grocer", "enrolMember", "EnrolMemberInput"),
                    ("fuel", "linkMembership", "LinkMembershipInput"),
                ):
                    query = f"mutation($i: {kind}!) {{ {verb}(input: $i) {{ errors {{ code }} }} }}"
                    wait(world.ask(partner, query, i={"externalId": self.name(member), "card": f"C-{self.name(member)}"}))

        def name(self, member: str) -> str:
            return f"{member}{self.run}"

        def ref(self, member: str) -> dict[str, Any]:
            return {"member": {"externalId": self.name(member)}}

        @property
        def today(self) -> date:
            return world.clock.now().date()

        def last_day(self, day: date) -> date:
            year, month = divmod(day.year * 12 + day.month - 1 + 6, 12)
            return date(year, month + 1, monthrange(year, month + 1)[1])

        @rule(member=who, partner=where, cents=st.integers(0, 20_000), days=st.integers(0, 100))
        def buy(self, member: str, partner: str, cents: int, days: int) -> None:
            at = world.clock.now() - timedelta(days=days)
            receipt = f"{self.run}-{len(self.purchases)}"
            amount = f"{cents // 100}.{cents % 100:02d}"
            answer = wait(world.record(amount, who=partner, receipt=receipt, occurredAt=at.isoformat(), **self.ref(member)))
            points, lot = cents * RATES[partner] // 100, (self.last_day(at.date()), funders[partner])
            assert answer["earning"]["points"] == points
            bought = Purchase(member, partner, cents, points, lot, 0, None)
            self.purchases[receipt] = bought
            model = self.members[member]
            if self.waiting and points:
                bought.unripe, bought.ripens = points, at.date() + timedelta(days=PENDING_DAYS)
                return
            repaid = min(points, model.owed)
            model.owed -= repaid
            model.put(lot, points - repaid)

        @rule(data=st.data())
        def give_back(self, data: st.DataObject) -> None:
            if not self.purchases:
                return
            receipt = data.draw(st.sampled_from(sorted(self.purchases)))
            bought = self.purchases[receipt]
            cents = data.draw(st.integers(1, bought.cents + 100))
            total = {"amount": f"{cents // 100}.{cents % 100:02d}", "currency": "USD"}
            answer = wait(world.give_back(receipt, who=bought.partner, total=total))
            if cents > bought.cents:
                assert codes(answer) == ["RETURN_EXCEEDS_PURCHASE"]
                return
            points = bought.points - (bought.cents - cents) * RATES[bought.partner] // 100
            assert answer["purchaseReturn"]["points"] == -points
            unripe = min(points, bought.unripe)
            bought.unripe -= unripe
            model = self.members[bought.member]
            taken = sum(model.take(points - unripe, self.today, bought.lot).values())
            model.owed += points - unripe - taken
            bought.cents, bought.points = bought.cents - cents, bought.points - points

        @rule(member=who, points=st.integers(1, 300))
        def redeem(self, member: str, points: int) -> None:
            answer = wait(world.redeem(points, **self.ref(member)))
            if points > self.members[member].spendable(self.today):
                assert codes(answer) == ["INSUFFICIENT_POINTS"]
            else:
                assert answer["errors"] == []
                self.members[member].redemptions[answer["redemption"]["id"]] = self.members[member].take(points, self.today)

        @rule(member=who, points=st.integers(1, 300))
        def set_aside(self, member: str, points: int) -> None:
            until = (world.clock.now() + timedelta(days=29)).isoformat()
            answer = wait(hold(world, points, expiresAt=until, **self.ref(member)))
            if points > self.members[member].spendable(self.today):
                assert codes(answer) == ["INSUFFICIENT_POINTS"]
            else:
                self.members[member].holds[answer["hold"]["id"]] = self.members[member].take(points, self.today)

        @rule(member=who, points=st.integers(1, 200), data=st.data())
        def use_what_is_set_aside(self, member: str, points: int, data: st.DataObject) -> None:
            held = self.members[member].holds
            if not held:
                return
            id = data.draw(st.sampled_from(sorted(held)))
            answer = wait(capture(world, id, points))
            if points > sum(held[id].values()):
                assert codes(answer) == ["CAPTURE_EXCEEDS_HOLD"]
                return
            taken: Lots = {}
            for day in sorted(held[id]):
                taken[day] = min(points, held[id][day])
                held[id][day] -= taken[day]
                points -= taken[day]
            self.members[member].redemptions[answer["redemption"]["id"]] = taken
            if not any(held[id].values()):
                del held[id]

        @rule(member=who, data=st.data())
        def let_go(self, member: str, data: st.DataObject) -> None:
            model = self.members[member]
            if not model.holds:
                return
            id = data.draw(st.sampled_from(sorted(model.holds)))
            assert wait(release(world, id))["errors"] == []
            for day, points in model.holds.pop(id).items():
                model.put(day, points)
            model.settle(self.today)

        @rule(member=who, points=st.integers(1, 100), data=st.data())
        def undo(self, member: str, points: int, data: st.DataObject) -> None:
            model = self.members[member]
            if not model.redemptions:
                return
            id = data.draw(st.sampled_from(sorted(model.redemptions)))
            taken = model.redemptions[id]
            answer = wait(reverse(world, id, points))
            if points > sum(taken.values()):
                assert codes(answer) == ["REVERSAL_EXCEEDS_REDEMPTION"]
                return
            for day in sorted(taken, reverse=True):
                part = min(points, taken[day])
                taken[day] -= part
                model.put(day, part)
                points -= part
            model.settle(self.today)

        @rule(member=who, points=st.integers(1, 200))
        def give_away(self, member: str, points: int) -> None:
            giver, taker = self.members[member], self.members["b" if member == "a" else "a"]
            card = f"C-{self.name('b' if member == 'a' else 'a')}"
            given = {"idempotencyKey": f"t{next(world.numbers)}", "card": card, "programme": "MER", "points": points}
            token = wait(mint(world, "member", wait(member_id(self.name(member)))))
            answer = wait(world.ask(token, TRANSFER, i=given))["transferPoints"]
            if points > giver.spendable(self.today):
                assert codes(answer) == ["INSUFFICIENT_POINTS"]
                return
            assert answer["errors"] == []
            for day, part in giver.take(points, self.today).items():
                taker.put(day, part)
            taker.owed -= sum(taker.take(taker.owed, self.today).values())

        @rule(member=who, points=st.integers(-100, 100).filter(bool))
        def correct(self, member: str, points: int) -> None:
            model = self.members[member]
            given = {
                "idempotencyKey": f"j{next(world.numbers)}",
                "member": ids.show("mem", wait(member_id(self.name(member)))),
                "programme": "MER",
                "partner": "grocer",
                "points": points,
                "reason": "test",
            }
            token = wait(mint(world, "operator", wait(operator_id())))
            answer = wait(world.ask(token, ADJUST, i=given))["adjustPoints"]
            if -points > model.spendable(self.today):
                assert codes(answer) == ["INSUFFICIENT_POINTS"]
                return
            assert answer["errors"] == []
            yesterday = world.clock.now() - timedelta(days=1)
            that_day = sum(abs(p) for at, p in alone if at > yesterday and (p > 0) == (points > 0)) + abs(points)
            assert (answer["adjustment"]["state"] == "POSTED") == (that_day <= ALONE_A_DAY)
            if that_day > ALONE_A_DAY:
                return
            alone.append((world.clock.now(), points))
            if points > 0:
                model.put((self.last_day(self.today), funders["grocer"]), points)
                model.owed -= sum(model.take(model.owed, self.today).values())
            else:
                model.take(-points, self.today)

        @rule(days=st.integers(1, 40), wait_for_points=st.booleans())
        def time_passes(self, days: int, wait_for_points: bool) -> None:
            world.clock.set(world.clock.now() + timedelta(days=days))
            world.tokens.clear()
            token = wait(mint(world, "operator", wait(operator_id())))
            world.tokens["operator"] = token
            wait(terms(world, pendingDays=PENDING_DAYS if wait_for_points else 0))
            self.waiting = wait_for_points
            for job in ("mature", "holds", "expire"):
                wait(run_job(world, job))
            for member, model in self.members.items():
                for bought in self.purchases.values():
                    if bought.member == member and bought.ripens is not None and bought.ripens <= self.today:
                        model.put(bought.lot, bought.unripe)
                        bought.unripe, bought.ripens = 0, None
                model.owed -= sum(model.take(model.owed, self.today).values())
                if days >= 29:
                    for taken in model.holds.values():
                        for day, points in taken.items():
                            model.put(day, points)
                    model.holds.clear()
                model.settle(self.today)
            # Holds of less than 29 days ago go on; the model knows no ages, so they are let go here.
            for member, model in self.members.items():
                for _ in list(model.holds):
                    self.let_all_go(member)

        def let_all_go(self, member: str) -> None:
            model = self.members[member]
            id, taken = model.holds.popitem()
            assert wait(release(world, id))["errors"] == []
            for day, points in taken.items():
                model.put(day, points)
            model.settle(self.today)

        @invariant()
        def the_wallets_are_the_models(self) -> None:
            for member, model in self.members.items():
                wallet = wait(world.wallet(external_id=self.name(member)))
                unripe = sum(p.unripe for p in self.purchases.values() if p.member == member)
                held = sum(sum(taken.values()) for taken in model.holds.values())
                expected = (sum(model.lots.values()), unripe, held, model.owed)
                assert (wallet["available"], wallet["pending"], wallet["held"], wallet["owed"]) == expected

        @invariant()
        def the_ledger_holds(self) -> None:
            assert wait(world.broken()) == []

    return Points
