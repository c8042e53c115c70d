"""Every kind of transaction is shown to everybody whose it is, and to nobody fails what it cannot show."""

from typing import Any

import pytest

from gateway.database import Tx
from gateway.statements import Statement
from tests.access.test_walls import lived_in
from tests.conversion.exchanging import ANN, convert, quote
from tests.points import ann_logs_in, run_job
from tests.world import World

ACTIVITY = "activity(first: 50) { nodes { __typename id points programme { code } } }"
OWN = "query($r: MemberRef!) { membership(ref: $r) { %s } }"
REASON = "query($id: ID!) { node(id: $id) { id ... on Adjustment { reason } } }"


async def told(world: World, who: str, query: str, **given: Any) -> dict[str, str]:
    """What somebody is told of Ann's activity: the kinds of transactions by their ids."""
    answer = await world.ask(who, query, **given)
    (holder,) = answer.values()
    return {node["id"]: node["__typename"] for node in holder["activity"]["nodes"]}


async def test_every_kind_of_transaction_is_shown_to_its_member_its_partner_and_operators(world: World) -> None:
    await lived_in(world)
    await run_job(world, "expire")
    ann, operator = await ann_logs_in(world), await world.operator()
    hers = await told(world, ann, f"{{ me {{ {ACTIVITY} }} }}")
    assert {"Earning", "PurchaseReturn", "Redemption", "RedemptionReversal", "Transfer", "Conversion", "Adjustment"} <= set(hers.values())
    me = (await world.ask(ann, "{ me { id } }"))["me"]["id"]
    assert await told(world, operator, f"query($id: ID!) {{ member(id: $id) {{ {ACTIVITY} }} }}", id=me) == hers
    seen: dict[str, str] = {}
    for who in ("grocer", "fuel", "airline"):
        own = await told(world, who, OWN % ACTIVITY, r={"card": "CARD-1"})
        assert own.items() <= hers.items()
        seen |= own
        for id, kind in hers.items():
            node = (await world.ask(who, REASON, id=id))["node"]
            assert (node is not None) == (id in own), (who, kind)
    assert set(seen.values()) == set(hers.values()) - {"Transfer", "Expiration"}
    (adjusted,) = [id for id, kind in hers.items() if kind == "Adjustment"]
    assert [(await world.ask(who, REASON, id=adjusted))["node"] for who in ("grocer", operator, ann)] == [
        {"id": adjusted, "reason": None}, {"id": adjusted, "reason": "A till was down"}, {"id": adjusted, "reason": "A till was down"},
    ]  # fmt: skip
    assert (await world.ask("fuel", REASON, id=adjusted))["node"] is None


async def test_a_page_of_many_exchanges_asks_the_database_as_often_as_one_of_few(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.record("900.00")
    asked: list[str] = []
    real = Tx.all

    async def counted(tx: Tx, statement: Statement, **given: Any) -> list[Any]:
        asked.append(statement.name)
        return await real(tx, statement, **given)

    monkeypatch.setattr(Tx, "all", counted)
    counts = []
    for keys in (["first"], ["second", "third", "fourth"]):
        for key in keys:
            await convert(world, (await quote(world))["quote"]["id"], key)
        asked.clear()
        shown = await told(world, "airline", OWN % ACTIVITY, r=ANN)
        counts.append((list(shown.values()).count("Conversion"), len(asked)))
    (one, once), (four, again) = counts
    assert (one, four) == (1, 4)
    assert once == again
