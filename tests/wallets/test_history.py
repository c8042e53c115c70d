"""A wallet's past: every moment can be asked for, balances run, and a spent point leads back to its purchase."""

import asyncio
import time
from collections import OrderedDict
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
from hypothesis import given
from hypothesis import strategies as st

from gateway.wallets.history import _take_from
from tests.ledger.test_batches import waits
from tests.points import TRANSFER, ann_logs_in, bob_joins, capture, codes, hold, mint, release, run_job, terms
from tests.transfer.test_transfer import give
from tests.world import World

AS_OF = """
query($at: DateTime!) { me { wallets { programme { code } asOf(at: $at) { points available pending held owed } } } }
"""
HISTORY = """
query($first: Int!, $after: String) { me { wallets { programme { code } history(first: $first, after: $after) {
  nodes { kind points balance } pageInfo { hasNextPage endCursor } } } } }
"""


async def mer(world: World, query: str, **variables: Any) -> dict[str, Any]:
    found = (await world.ask(await ann_logs_in(world), query, **variables))["me"]["wallets"]
    return next(w for w in found if w["programme"]["code"] == "MER")


async def test_every_moment_of_a_wallet_can_be_asked_for_again(world: World) -> None:
    seen: list[tuple[str, dict[str, int]]] = []

    async def tick() -> None:
        wallet = await world.wallet()
        points = wallet["available"] + wallet["pending"] + wallet["held"] - wallet["owed"]
        seen.append((world.clock.now().isoformat(), {
            "points": points, "available": wallet["available"], "pending": wallet["pending"], "held": wallet["held"],
            "owed": wallet["owed"],
        }))  # fmt: skip
        world.clock.set(world.clock.now() + timedelta(seconds=20))

    await world.record("100.00", receipt="a")
    await tick()
    placed = (await hold(world, 60))["hold"]
    await tick()
    await capture(world, placed["id"], 20)
    await tick()
    await release(world, placed["id"])
    await tick()
    await world.redeem(80)
    await tick()
    await world.give_back("a", total={"amount": "30.00", "currency": "USD"})
    await tick()
    await terms(world, pendingDays=1)
    await world.record("50.00", receipt="b")
    await tick()
    await world.give_back("b", total={"amount": "10.00", "currency": "USD"})
    await tick()
    world.clock.set(world.clock.now() + timedelta(days=1))
    world.tokens.clear()
    await run_job(world, "mature")
    await tick()
    world.tokens.clear()
    assert [moment["owed"] for _, moment in seen][5] == 30
    for at, expected in seen:
        assert (await mer(world, AS_OF, at=at))["asOf"] == expected
    before = (world.clock.now() - timedelta(days=400)).isoformat()
    assert (await mer(world, AS_OF, at=before))["asOf"]["points"] == 0
    assert await world.broken() == []


async def test_the_past_is_what_happened_also_where_a_posting_waited_or_a_clock_is_behind(world: World) -> None:
    """A redemption that waits for another wallet of its batch spends what was bought meanwhile, and comes after it."""
    await bob_joins(world)
    await world.record("10.00", member={"externalId": "bob"})
    many = "mutation($i: [RedeemPointsInput!]!) { redeemPointsBatch(input: $i) { errors { code } } }"
    both = [
        {"idempotencyKey": f"w{name}", "member": {"externalId": name}, "programme": "MER", "points": 10} for name in ("bob", "ann")
    ]
    bob: UUID = (await world.sql("select member_id from card where number = 'CARD-2'"))[0][0]
    connection = await asyncpg.connect(world.dsn)
    await connection.execute("begin")
    await connection.fetch("select from wallet where member_id = $1 for update", bob)
    waiting = asyncio.create_task(world.ask("grocer", many, i=both))
    await waits(world, 1)
    world.clock.set(world.clock.now() + timedelta(milliseconds=500))
    await world.record("10.00")
    await connection.close()
    spent = (await waiting)["redeemPointsBatch"]
    world.clock.set(world.clock.now() - timedelta(milliseconds=200))
    await world.record("5.00")
    world.clock.set(world.clock.now() + timedelta(seconds=1))
    history = (await mer(world, HISTORY, first=9))["history"]["nodes"]
    expected = [{"kind": "earning", "points": 5, "balance": 15}, {"kind": "earning", "points": 10, "balance": 10}]
    if codes(spent[1]) == []:  # in one lane with Bob's it waited; in another it was refused before the purchase was there
        expected[0]["balance"] = 5
        expected.insert(1, {"kind": "redemption", "points": -10, "balance": 0})
    assert history == expected
    moments = [row[0] for row in await world.sql("select posted_at from transaction where member_id <> $1 order by posted_at", bob)]
    for at in moments:
        assert (await mer(world, AS_OF, at=at.isoformat()))["asOf"]["available"] >= 0
    assert await world.broken() == []


async def test_the_history_runs_a_balance_and_pages_without_a_gap(world: World) -> None:
    for points in (10, 20, 30):
        await world.record(f"{points}.00")
        world.clock.set(world.clock.now() + timedelta(seconds=1))
    await world.redeem(25)
    first = (await mer(world, HISTORY, first=3))["history"]
    assert first["nodes"] == [
        {"kind": "redemption", "points": -25, "balance": 35},
        {"kind": "earning", "points": 30, "balance": 60},
        {"kind": "earning", "points": 20, "balance": 30},
    ]
    rest = (await mer(world, HISTORY, first=3, after=first["pageInfo"]["endCursor"]))["history"]
    assert rest["nodes"] == [{"kind": "earning", "points": 10, "balance": 10}]
    assert not rest["pageInfo"]["hasNextPage"]


async def test_a_redeemed_point_leads_back_to_the_purchase_that_brought_it(world: World) -> None:
    for number, amount in enumerate(("10.00", "20.00", "30.00")):
        await world.record(amount, receipt=f"r{number}")
        world.clock.set(world.clock.now() + timedelta(seconds=1))
    await world.redeem(15)
    second = (await world.redeem(25))["redemption"]["id"]
    trace = """query($id: ID!) { node(id: $id) { ... on Redemption { takes {
      points origins { kind receipt points partner { code } } } } } }"""
    takes = (await world.ask(await world.operator(), trace, id=second))["node"]["takes"]
    assert takes == [{
        "points": 25,
        "origins": [
            {"kind": "earning", "receipt": "r1", "points": 15, "partner": {"code": "grocer"}},
            {"kind": "earning", "receipt": "r2", "points": 10, "partner": {"code": "grocer"}},
        ],
    }]  # fmt: skip


async def test_points_that_were_given_away_lead_back_to_the_purchases_of_who_gave_them(world: World) -> None:
    await bob_joins(world)
    await world.record("10.00", receipt="r0")
    await world.record("20.00", receipt="r1")
    await world.record("4.00", receipt="own", member={"externalId": "bob"})
    for points in (5, 15):
        world.clock.set(world.clock.now() + timedelta(seconds=1))
        assert (await give(world, points))["errors"] == []
    world.clock.set(world.clock.now() + timedelta(seconds=1))
    await world.redeem(7, who="grocer", member={"externalId": "bob"})
    spent = (await world.redeem(10, who="grocer", member={"externalId": "bob"}))["redemption"]["id"]
    trace = """query($id: ID!) { node(id: $id) { ... on Redemption { takes { points origins { kind receipt points } } } } }"""
    (take,) = (await world.ask(await world.operator(), trace, id=spent))["node"]["takes"]
    # Bob has 4 of his own, then 5 of r0, then 5 of r0 and 10 of r1; 7 of these 24 are gone.
    assert take["points"] == 10
    by_receipt: dict[str, int] = {}
    for origin in take["origins"]:
        assert origin["kind"] == "earning"
        by_receipt[origin["receipt"]] = by_receipt.get(origin["receipt"], 0) + origin["points"]
    assert by_receipt == {"r0": 7, "r1": 3}


async def test_points_that_go_back_and_forth_are_traced_in_a_moment(world: World) -> None:
    await bob_joins(world)
    await world.record("200.00", receipt="r0")
    bob = (await world.sql("select member_id from card where number = 'CARD-2'"))[0]["member_id"]
    back = await mint(world, "member", bob)
    for _ in range(6):
        for points in [2] * 8:
            assert (await give(world, points))["errors"] == []
        returned = {"idempotencyKey": f"b{next(world.numbers)}", "card": "CARD-1", "programme": "MER", "points": 10}
        assert (await world.ask(back, TRANSFER, i=returned))["transferPoints"]["errors"] == []
        world.clock.set(world.clock.now() + timedelta(seconds=1))
    spent = (await world.redeem(30, who="grocer", member={"externalId": "bob"}))["redemption"]["id"]
    trace = "query($id: ID!) { node(id: $id) { ... on Redemption { takes { origins { kind receipt points } } } } }"
    operator = await world.operator()
    async with asyncio.timeout(5):
        (take,) = (await world.ask(operator, trace, id=spent))["node"]["takes"]
    assert {(origin["kind"], origin["receipt"]) for origin in take["origins"]} == {("earning", "r0")}
    assert sum(origin["points"] for origin in take["origins"]) == 30


async def test_a_partner_cannot_read_a_wallets_history(world: World) -> None:
    await world.record("10.00")
    query = """{ membership(ref: {externalId: "ann"}) { wallets { history(first: 5) { nodes { points } } } } }"""
    assert (await world.post("grocer", query)).status_code == 403


def one_after_the_other(left: dict[UUID, int], wanted: int, own: UUID | None) -> dict[UUID, int]:
    """The rule in its plainest words: whoever comes first is asked first, a return's own purchase before all."""
    taken: dict[UUID, int] = {}
    for id in ([own] if own in left else []) + [id for id in left if id != own]:  # type: ignore[operator]
        points = min(wanted, left[id])  # type: ignore[index]
        left[id] -= points  # type: ignore[index]
        wanted -= points
        if points:
            taken[id] = points  # type: ignore[index]
    return taken


@given(
    st.lists(st.integers(0, 20), max_size=8),
    st.lists(st.tuples(st.integers(0, 60), st.none() | st.integers(0, 9)), max_size=8),
)
def test_points_are_taken_from_who_came_first_by_the_rule_in_its_plainest_words(
    credits: list[int], takes: list[tuple[int, int | None]]
) -> None:
    ids = [UUID(int=n) for n in range(10)]
    plain = dict(zip(ids, credits, strict=False))
    quick = OrderedDict(plain)
    for wanted, own in takes:
        of_own = ids[own] if own is not None else None
        assert _take_from(quick, wanted, of_own) == one_after_the_other(plain, wanted, of_own)
        assert dict(quick) == {id: points for id, points in plain.items() if points} | {id: 0 for id in quick if not plain[id]}


def test_a_thousand_redemptions_of_a_thousand_purchases_each_are_traced_in_a_moment() -> None:
    left = OrderedDict((UUID(int=n), 1) for n in range(100_000))
    began = time.process_time()
    for _ in range(1_000):
        assert len(_take_from(left, 100, None)) == 100
    assert time.process_time() - began < 2
    assert not left
