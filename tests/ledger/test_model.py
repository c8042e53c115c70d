"""Random sequences of everything that moves points, by two members, against a model small enough to believe."""

import asyncio
import os
from calendar import monthrange
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from gateway import ids
from tests.conversion.exchanging import CONVERT, QUOTE, fault
from tests.credit.test_credit import pay, set_credit, usd
from tests.ledger.model import CONVERTED_AT_ONCE, Books, Lot, Terms
from tests.points import ADJUST, TRANSFER, capture, codes, hold, mint, release, reverse, run_job, terms
from tests.world import Place, World, open_world

STEPS = int(os.environ.get("MODEL_STEPS", "30"))
RUNS = int(os.environ.get("MODEL_RUNS", "6"))

EARN_MANY = "mutation($i: [PurchaseInput!]!) { recordPurchases(input: $i) { earning { id points } errors { code } } }"
SPEND_MANY = "mutation($i: [RedeemPointsInput!]!) { redeemPointsBatch(input: $i) { redemption { id points } errors { code } } }"
CONVERTED = """
select coalesce(sum(-e.points), 0)::bigint as points
  from entry e join card c on c.member_id = e.member_id
 where e.account = 'custody' and c.number = $1
"""
LOTS = """
select l.expires_on, l.funder_id, l.remaining
  from lot l join card c on c.member_id = l.member_id
 where l.remaining > 0 and c.number = $1
"""
DEBTS = """
select d.partner_id, d.charged, d.points
  from debt d join card c on c.member_id = d.member_id
 where c.number = $1
"""


async def test_random_sequences_agree_with_a_small_model(place: Place) -> None:
    """The gateway runs on this loop; Hypothesis, which is synchronous, drives it from a thread."""
    loop = asyncio.get_running_loop()
    async with open_world(place, jobs=()) as world:
        await asyncio.to_thread(_run, _machine(world, loop))


def _run(machine: type[RuleBasedStateMachine]) -> None:
    quiet = settings(max_examples=RUNS, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=quiet)  # type: ignore[no-untyped-call]


def money(cents: int) -> dict[str, str]:
    return usd(f"{cents // 100}.{cents % 100:02d}")


def last_day(day: date) -> date:
    """Points of MER run out at the end of the sixth month."""
    year, month = divmod(day.year * 12 + day.month - 1 + 6, 12)
    return date(year, month + 1, monthrange(year, month + 1)[1])


def _machine(world: World, loop: asyncio.AbstractEventLoop) -> type[RuleBasedStateMachine]:
    def wait(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)

    async def member_id(name: str) -> Any:
        return (await world.sql("select member_id from card where number = $1", f"C-{name}"))[0]["member_id"]

    async def operator() -> str:
        id = (await world.sql("select account_id from account where login = 'olga'"))[0]["account_id"]
        return await mint(world, "operator", id)

    who = st.sampled_from(["a", "b"])
    where = st.sampled_from(["grocer", "fuel"])
    maybe = st.none() | st.integers(50, 400)
    shopping = st.tuples(who, st.integers(0, 20_000), st.integers(0, 100))
    funders: dict[str, UUID] = {}
    # The operator, the programme and the partners are the same in every run.
    shared = Terms()

    class Points(RuleBasedStateMachine):
        """Two members of their own a run."""

        def __init__(self) -> None:
            super().__init__()
            self.run = next(world.numbers)
            self.books = Books(shared, ["a", "b"], world.clock.now())
            funders.update((row["code"], row["partner_id"]) for row in wait(world.sql("select code, partner_id from partner")))
            world.tokens.clear()
            world.tokens["operator"] = wait(operator())
            self.set_terms(0, None, None)
            for member in self.books.members:
                known = {"externalId": self.name(member), "card": f"C-{self.name(member)}"}
                for partner, verb, kind in (
                    ("grocer", "enrolMember", "EnrolMemberInput"),
                    ("fuel", "linkMembership", "LinkMembershipInput"),
                    ("airline", "linkMembership", "LinkMembershipInput"),
                ):
                    query = f"mutation($i: {kind}!) {{ {verb}(input: $i) {{ errors {{ code }} }} }}"
                    assert wait(world.ask(partner, query, i=known))[verb]["errors"] == []
                # Something to spend, so that most sequences do not begin with refusals.
                self.buy_something("fuel", (member, 100_000, 20))

        def name(self, member: str) -> str:
            return f"{member}{self.run}"

        def ref(self, member: str) -> dict[str, Any]:
            return {"member": {"externalId": self.name(member)}}

        def lot(self, partner: str, day: date) -> Lot:
            return last_day(day), funders[partner]

        def new_receipt(self) -> str:
            return f"{self.run}-{next(world.numbers)}"

        def agree(self, answer: dict[str, Any], refusal: str | None) -> None:
            assert codes(answer) == ([] if refusal is None else [refusal])

        def purchase(self, member: str, cents: int, days: int, receipt: str, key: str) -> dict[str, Any]:
            at = (world.clock.now() - timedelta(days=days)).isoformat()
            return {"idempotencyKey": key, "receipt": receipt, "occurredAt": at, "total": money(cents), **self.ref(member)}

        def expect_purchase(self, partner: str, member: str, cents: int, days: int, receipt: str) -> str | None:
            on = (world.clock.now() - timedelta(days=days)).date()
            return self.books.buy(receipt, member, partner, cents, on, self.lot(partner, on))

        @rule(partner=where, bought=shopping)
        def buy(self, partner: str, bought: tuple[str, int, int]) -> None:
            self.buy_something(partner, bought)

        def buy_something(self, partner: str, bought: tuple[str, int, int]) -> None:
            receipt = self.new_receipt()
            given = self.purchase(*bought, receipt, f"k{receipt}")
            answer = wait(world.record("0", who=partner, **given))
            self.agree(answer, self.expect_purchase(partner, *bought, receipt))
            if answer["earning"]:
                assert answer["earning"]["points"] == self.books.purchases[receipt].points

        @rule(partner=where, many=st.lists(st.tuples(shopping, st.sampled_from(["", "", "again", "receipt", "key"])), max_size=6))
        def buy_many(self, partner: str, many: list[tuple[tuple[str, int, int], str]]) -> None:
            """A batch answers like single calls in its order, also where its items contradict each other."""
            inputs: list[dict[str, Any]] = []
            expected: list[Any] = []
            for bought, twist in many:
                receipt = self.new_receipt()
                given = self.purchase(*bought, receipt, f"k{receipt}")
                if twist == "again" and inputs:
                    inputs.append(inputs[0])
                    expected.append(expected[0])
                elif twist == "key" and inputs:
                    inputs.append({**given, "idempotencyKey": inputs[0]["idempotencyKey"]})
                    expected.append("IDEMPOTENCY_KEY_REUSED")
                else:
                    receipt = inputs[-1]["receipt"] if twist == "receipt" and inputs else receipt
                    inputs.append({**given, "receipt": receipt})
                    refusal = self.expect_purchase(partner, *bought, receipt)
                    expected.append(refusal or self.books.purchases[receipt].points)
            answers = wait(world.ask(partner, EARN_MANY, i=inputs))["recordPurchases"]
            assert [a["earning"]["points"] if a["earning"] else codes(a)[0] for a in answers] == expected

        @rule(data=st.data())
        def give_back(self, data: st.DataObject) -> None:
            if not self.books.purchases:
                return
            receipt = data.draw(st.sampled_from(list(self.books.purchases)))
            bought = self.books.purchases[receipt]
            self.give_back_so_much(receipt, data.draw(st.integers(1, bought.cents + 100)))

        def give_back_so_much(self, receipt: str, cents: int) -> None:
            bought = self.books.purchases[receipt]
            points = self.books.points_of_return(receipt, cents)
            answer = wait(world.give_back(receipt, who=bought.partner, total=money(cents)))
            self.agree(answer, self.books.give_back(receipt, cents))
            if answer["purchaseReturn"]:
                assert answer["purchaseReturn"]["points"] == -points

        @rule(partner=where, member=who)
        def buy_use_up_and_give_back(self, partner: str, member: str) -> None:
            """What members may owe after: rare in sequences that nobody steers there."""
            self.buy_something(partner, (member, 20_000, 0))
            if there := wait(world.wallet(external_id=self.name(member)))["available"]:
                self.redeem_so_much(member, there)
            mine = {receipt: bought for receipt, bought in self.books.purchases.items() if bought.member == member}
            for receipt in list(mine)[-2:]:
                if mine[receipt].cents:
                    self.give_back_so_much(receipt, mine[receipt].cents)

        def teardown(self) -> None:
            """The credit is the same in every run, the members are not: they leave no debts that are repaid during the next."""
            self.set_terms(0, None, None)
            for member, holder in self.books.members.items():
                if holder.owed:
                    self.buy_something("fuel", (member, 200 * holder.owed, 0))
            self.place_debts()

        @rule()
        def place_debts(self) -> None:
            wait(run_job(world, "credit"))
            self.books.place_debts()
            for member, holder in self.books.members.items():
                rows = wait(world.sql(DEBTS, f"C-{self.name(member)}"))
                assert {(row["partner_id"], row["charged"]): row["points"] for row in rows} == holder.borne

        @rule(member=who, points=st.integers(1, 150))
        def redeem(self, member: str, points: int) -> None:
            self.redeem_so_much(member, points)

        def redeem_so_much(self, member: str, points: int) -> None:
            answer = wait(world.redeem(points, **self.ref(member)))
            self.agree(answer, self.books.redeem(member, points, (answer["redemption"] or {}).get("id", "")))

        @rule(many=st.lists(st.tuples(who, st.integers(1, 150)), max_size=5))
        def redeem_many(self, many: list[tuple[str, int]]) -> None:
            common = {"programme": "MER"}
            inputs = [
                {**common, "idempotencyKey": f"r{next(world.numbers)}", "points": points, **self.ref(member)} for member, points in many
            ]
            for (member, points), answer in zip(many, wait(world.ask("fuel", SPEND_MANY, i=inputs))["redeemPointsBatch"], strict=True):
                self.agree(answer, self.books.redeem(member, points, (answer["redemption"] or {}).get("id", "")))

        @rule(member=who, points=st.integers(1, 150), days=st.integers(1, 30))
        def set_aside(self, member: str, points: int, days: int) -> None:
            until = world.clock.now() + timedelta(days=days)
            answer = wait(hold(world, points, expiresAt=until.isoformat(), **self.ref(member)))
            self.agree(answer, self.books.hold(member, points, until, (answer["hold"] or {}).get("id", "")))

        def draw(self, of: dict[str, Any], data: st.DataObject) -> str | None:
            return data.draw(st.sampled_from(list(of))) if of else None

        @rule(member=who, points=st.integers(1, 200), data=st.data())
        def use_what_is_set_aside(self, member: str, points: int, data: st.DataObject) -> None:
            if id := self.draw(self.books.members[member].holds, data):
                answer = wait(capture(world, id, points))
                self.agree(answer, self.books.capture(member, id, points, (answer["redemption"] or {}).get("id", "")))

        @rule(member=who, data=st.data())
        def let_go(self, member: str, data: st.DataObject) -> None:
            if id := self.draw(self.books.members[member].holds, data):
                assert wait(release(world, id))["errors"] == []
                self.books.release(member, id)

        @rule(member=who, points=st.integers(1, 100), data=st.data())
        def undo(self, member: str, points: int, data: st.DataObject) -> None:
            if id := self.draw(self.books.members[member].redemptions, data):
                self.agree(wait(reverse(world, id, points)), self.books.reverse(member, id, points))

        @rule(member=who, points=st.integers(1, 200))
        def give_away(self, member: str, points: int) -> None:
            other = "b" if member == "a" else "a"
            given = {"idempotencyKey": f"t{next(world.numbers)}", "card": f"C-{self.name(other)}", "programme": "MER", "points": points}
            token = wait(mint(world, "member", wait(member_id(self.name(member)))))
            answer = wait(world.ask(token, TRANSFER, i=given))["transferPoints"]
            self.agree(answer, self.books.transfer(member, other, points))

        @rule(member=who, points=st.integers(-100, 100).filter(bool))
        def correct(self, member: str, points: int) -> None:
            given = {
                "idempotencyKey": f"j{next(world.numbers)}", "member": ids.show("mem", wait(member_id(self.name(member)))),
                "programme": "MER", "partner": "grocer", "points": points, "reason": "test",
            }  # fmt: skip
            answer = wait(world.ask(wait(operator()), ADJUST, i=given))["adjustPoints"]
            refusal = self.books.adjust(member, points, self.lot("grocer", self.books.today))
            if refusal == "AWAITING_APPROVAL":
                assert answer["adjustment"]["state"] == refusal
            else:
                self.agree(answer, refusal)

        @rule(member=who, times=st.integers(1, 2), mode=st.sampled_from(["none", "none", "refuse", "lose_answer"]))
        def convert(self, member: str, times: int, mode: str) -> None:
            """The airline may refuse, or its answer may be lost until it is asked for again."""
            points = times * CONVERTED_AT_ONCE
            given = {"from": "MER", "to": "SKY", "take": points, **self.ref(member)}
            quoted = wait(world.ask("airline", QUOTE, input=given))["quoteConversion"]["quote"]
            wait(fault(world, mode))
            order = {"idempotencyKey": f"c{next(world.numbers)}", "quote": quoted["id"], **self.ref(member)}
            answer = wait(world.ask("airline", CONVERT, input=order))["convertPoints"]
            wait(fault(world, "none"))
            refusal = self.books.convert(member, points, mode == "refuse")
            if refusal is None and mode == "lose_answer":
                self.agree(answer, "STATE_CONFLICT")
                answer = wait(world.ask("airline", CONVERT, input=order))["convertPoints"]
            self.agree(answer, "NOT_ALLOWED" if refusal is None and mode == "refuse" else refusal)

        @rule(pending=st.sampled_from([0, 0, 3]), most=maybe, most_a_day=maybe)
        def set_terms(self, pending: int, most: int | None, most_a_day: int | None) -> None:
            wait(terms(world, pendingDays=pending, spendMost=most, spendMostADay=most_a_day))
            shared.pending_days, shared.most, shared.most_a_day = pending, most, most_a_day

        @rule(within_balance=st.booleans())
        def set_refund_policy(self, within_balance: bool) -> None:
            policy = "within_balance" if within_balance else "allow_debt"
            wait(world.sql("update programme set refund_policy = $1 where code = 'MER'", policy))
            shared.within_balance = within_balance

        @rule(more=st.integers(-200, 1_000))
        def set_credit(self, more: int) -> None:
            """A limit of a little more or less than is used: some purchases fit, some do not."""
            shared.credit = max(shared.used + more, 0)
            assert wait(set_credit(world, money(shared.credit)["amount"]))["errors"] == []

        @rule(cents=st.integers(1, 300))
        def pay_credit(self, cents: int) -> None:
            if shared.credit is not None:
                assert wait(pay(world, money(cents)["amount"], f"p{next(world.numbers)}"))["errors"] == []
                shared.used -= cents

        @rule(days=st.sampled_from([0, 1, 1, 2, 5, 20, 40, 100]))
        def time_passes(self, days: int) -> None:
            world.clock.set(world.clock.now() + timedelta(days=days))
            world.tokens.clear()
            world.tokens["operator"] = wait(operator())
            for job in ("mature", "holds", "expire"):
                wait(run_job(world, job))
            self.books.time_passes(days)

        @invariant()
        def the_wallets_are_the_models(self) -> None:
            for member in self.books.members:
                wallet = wait(world.wallet(external_id=self.name(member)))
                converted = wait(world.sql(CONVERTED, f"C-{self.name(member)}"))[0]["points"]
                found = (wallet["available"], wallet["pending"], wallet["held"], wallet["owed"], converted)
                assert found == self.books.standing(member)
                lots = wait(world.sql(LOTS, f"C-{self.name(member)}"))
                assert {(row["expires_on"], row["funder_id"]): row["remaining"] for row in lots} == self.books.lots(member)

        @invariant()
        def the_credit_is_the_models(self) -> None:
            if shared.credit is not None:
                assert wait(world.sql("select sum(used) as used from credit_slot"))[0]["used"] == shared.used

        @invariant()
        def the_ledger_holds(self) -> None:
            assert wait(world.broken()) == []

    return Points
