"""Random sequences of everything that moves points, against a model small enough to believe."""

import asyncio
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.conftest import create_database
from tests.world import World, open_world

STEPS = 25
RUNS = 5


async def test_random_sequences_agree_with_a_small_model(server: Any, template: str, tmp_path: Any) -> None:
    """The gateway runs on this loop; Hypothesis, which is synchronous, drives it from a thread."""
    loop = asyncio.get_running_loop()
    dsn = await create_database(server, "model", template)
    async with open_world(dsn, tmp_path) as world:
        machine = _machine(world, loop)
        await asyncio.to_thread(_run, machine)


def _run(machine: type[RuleBasedStateMachine]) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    quiet = settings(max_examples=RUNS, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=quiet)  # type: ignore[no-untyped-call]


def _machine(world: World, loop: asyncio.AbstractEventLoop) -> type[RuleBasedStateMachine]:
    def wait(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)

    class Points(RuleBasedStateMachine):
        """One member of its own a run: what is available, what is owed, and each purchase with what is left of it."""

        def __init__(self) -> None:
            super().__init__()
            self.name = f"m{next(world.numbers)}"
            for partner, verb, kind in (
                ("grocer", "enrolMember", "EnrolMemberInput"),
                ("fuel", "linkMembership", "LinkMembershipInput"),
            ):
                query = f"mutation($i: {kind}!) {{ {verb}(input: $i) {{ errors {{ code }} }} }}"
                wait(world.ask(partner, query, i={"externalId": self.name, "card": f"C-{self.name}"}))
            self.available = self.owed = 0
            self.purchases: dict[str, tuple[int, int]] = {}

        @rule(cents=st.integers(0, 20_000))
        def buy(self, cents: int) -> None:
            receipt = f"{self.name}-{len(self.purchases)}"
            amount = f"{cents // 100}.{cents % 100:02d}"
            answer = wait(world.record(amount, receipt=receipt, member={"externalId": self.name}))
            points = cents // 100
            assert answer["earning"]["points"] == points
            self.purchases[receipt] = (cents, points)
            repaid = min(points, self.owed)
            self.owed -= repaid
            self.available += points - repaid

        @rule(data=st.data())
        def give_back(self, data: st.DataObject) -> None:
            if not self.purchases:
                return
            receipt = data.draw(st.sampled_from(sorted(self.purchases)))
            left, kept = self.purchases[receipt]
            cents = data.draw(st.integers(1, left + 100))
            total = {"amount": f"{cents // 100}.{cents % 100:02d}", "currency": "USD"}
            answer = wait(world.give_back(receipt, total=total))
            if cents > left:
                assert [e["code"] for e in answer["errors"]] == ["RETURN_EXCEEDS_PURCHASE"]
                return
            points = kept - (left - cents) // 100
            assert answer["purchaseReturn"]["points"] == -points
            taken = min(points, self.available)
            self.available -= taken
            self.owed += points - taken
            self.purchases[receipt] = (left - cents, kept - points)

        @rule(points=st.integers(1, 300))
        def redeem(self, points: int) -> None:
            answer = wait(world.redeem(points, member={"externalId": self.name}))
            if points > self.available:
                assert [e["code"] for e in answer["errors"]] == ["INSUFFICIENT_POINTS"]
            else:
                assert answer["errors"] == []
                self.available -= points

        @invariant()
        def the_wallet_is_the_models(self) -> None:
            wallet = wait(world.wallet(external_id=self.name))
            assert (wallet["available"], wallet["owed"], wallet["held"]) == (self.available, self.owed, 0)

        def teardown(self) -> None:
            assert wait(world.broken()) == []

    return Points
