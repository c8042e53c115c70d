"""`node` finds whatever is a Node, for whom it is, and for nobody else."""

from typing import get_args, get_type_hints

from gateway.ids import show
from gateway.schema import NODES, create_schema
from tests.conversion.exchanging import QUOTE
from tests.founding import OPERATOR_PASSWORD
from tests.points import ADJUST, ann_logs_in, bob_joins
from tests.world import World, log_in

FIND = "query($id: ID!) { node(id: $id) { __typename id } }"


def test_every_type_that_is_a_node_is_found_by_an_id() -> None:
    types = create_schema()._schema
    activity = {each.name for each in types.get_implementations(types.type_map["Activity"]).objects}
    nodes = {each.name for each in types.get_implementations(types.type_map["Node"]).objects}
    found = {each.__name__ for find in NODES.values() for each in get_args(get_type_hints(find)["return"])}
    assert nodes - activity == found - {"Activity", "NoneType"}


async def test_a_purchase_a_quote_and_a_request_are_found_by_those_whose_they_are(world: World) -> None:
    await bob_joins(world)
    bought = (await world.record("500.00"))["earning"]["purchase"]["id"]
    ann, operator = await ann_logs_in(world), await world.operator()
    ann_id = show("mem", (await world.sql("select member_id from card where number = 'CARD-1'"))[0][0])
    wanted = {"idempotencyKey": "a", "member": ann_id, "partner": "grocer", "points": 5_000, "programme": "MER", "reason": "x"}
    asked = (await world.ask(operator, ADJUST, i=wanted))["adjustPoints"]["adjustment"]
    assert asked["state"] == "AWAITING_APPROVAL"
    quotes = [
        (await world.ask(who, QUOTE, input={"from": "MER", "to": "SKY", "take": 200, **whose}))["quoteConversion"]["quote"]["id"]
        for who, whose in ((ann, {}), ("airline", {"member": {"externalId": "ann"}}))
    ]
    bob_id = (await world.sql("select member_id from card where number = 'CARD-2'"))[0][0]
    await world.set_password("bob", "bob's password", bob_id)
    callers = {"ann": ann, "bob": await log_in(world, "member-app", "com.example.loyalty:/callback", "bob", "bob's password")}
    for role in ("support", "approver", "finance"):
        await world.new_operator(role, [role])
        world.http.cookies.clear()
        callers[role] = await log_in(world, "console", f"{world.url}/graphiql", role, OPERATOR_PASSWORD)
    callers |= {partner: partner for partner in ("grocer", "fuel", "airline")}
    operators = {"support", "approver"}  # who may see members
    seen = {"Purchase": {"ann", "grocer", *operators}, "Quote": {"ann", "airline", *operators}, "AdjustmentRequest": operators}
    for type_name, id in (("Purchase", bought), *(("Quote", each) for each in quotes), ("AdjustmentRequest", asked["id"])):
        for name, caller in callers.items():
            found = (await world.ask(caller, FIND, id=id))["node"]
            assert found == ({"__typename": type_name, "id": id} if name in seen[type_name] else None), (type_name, name)
        elsewhere = show(id.partition("_")[0], bob_id)  # of its kind, and nothing's
        assert (await world.ask("grocer", FIND, id=elsewhere))["node"] is None
