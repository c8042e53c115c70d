"""Values completed by compiled functions are those that graphql-core completes."""

from typing import Any

import pytest

from gateway import outputs
from gateway.http import executor
from tests.points import bob_joins, codes, hold, reverse
from tests.world import World

PAYLOAD = """{ __typename errors { code message path } earning { __typename id points occurredAt postedAt period missedPeriod
  availableOn programme { id code name custody refundPolicy pendingDays spendMost expiry { afterMonths } issuer { code } }
  explanation { rule version condition amount multiplier rounding points funder }
  purchase { id receipt occurredAt total { amount currency } returned { amount } } } }"""
NODES = """{ pageInfo { hasNextPage startCursor } edges { cursor node { id } } nodes { __typename id points period programme { code }
  ... on Earning { purchase { receipt total { amount } } availableOn } ... on Redemption { reference reversed }
  ... on Node { same: id } ...Gone } }"""
FRAGMENT = "fragment Gone on PurchaseReturn { owed total { amount currency } }"

MEMBER = "query($id: ID!) { node(id: $id) { id ... on Membership { wallets { programme { code } available pending held owed }"
ACTIVITY = MEMBER + " activity(first: 50) " + NODES + " } } } " + FRAGMENT
PROGRAMMES = "{ programmes { ...P issuer { code status } } conversionRates { from { ...P } rate { take give } validFrom } } "
PROGRAMMES += "fragment P on Programme { id code expiry { afterMonths } transferable }"


def uncompiled(query: str) -> str:
    """The same document with a directive that changes nothing; such documents are left to graphql-core."""
    assert query.count("pageInfo") + query.count("points occurredAt") + query.count(" rate ") == 1
    return (
        query.replace("pageInfo", "pageInfo @include(if: true)")
        .replace("points occurredAt", "points @include(if: true) occurredAt")
        .replace(" rate ", " rate @skip(if: false) ")
    )


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the types whose values were completed by a compiled function."""
    names: list[str] = []
    find = outputs.Outputs.find

    def noting(self: outputs.Outputs, return_type: Any, details: Any, collect: Any) -> Any:
        complete = find(self, return_type, details, collect)
        if complete is None:
            return None

        def noted(value: Any, info: Any) -> Any:
            completed = complete(value, info)
            names.append(str(return_type))
            return completed

        return noted

    monkeypatch.setattr(outputs.Outputs, "find", noting)
    return names


async def both(world: World, query: str, **variables: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    quick = (await world.post("grocer", query, **variables)).json()
    slow = (await world.post("grocer", uncompiled(query), **variables)).json()
    for answer in (quick, slow):
        del answer["extensions"]  # what is left of the budget, which fills up with time
    return quick, slow


async def test_payloads_of_a_batch_are_the_same_with_refusals_among_them(world: World, compiled: list[str]) -> None:
    input = [world.purchase("12.50"), world.purchase("-1.00"), world.purchase("0.00"), world.purchase("3", member={"card": "none"})]
    query = "mutation($input: [PurchaseInput!]!) { recordPurchases(input: $input) " + PAYLOAD + " }"
    quick, slow = await both(world, query, input=input)
    assert quick == slow
    payloads = quick["data"]["recordPurchases"]
    assert [codes(p) for p in payloads] == [[], ["AMOUNT_NOT_ACCEPTED"], [], ["MEMBER_UNKNOWN"]]
    assert payloads[0]["earning"]["explanation"][0]["points"] == 12
    assert list(payloads[0]) == ["__typename", "errors", "earning"]
    assert compiled == ["[RecordPurchasePayload!]!"]


async def test_a_page_of_every_kind_of_activity_is_the_same(world: World, compiled: list[str]) -> None:
    await bob_joins(world)
    await world.record("40.00", receipt="r-1")
    redeemed = await world.redeem(10)
    await reverse(world, redeemed["redemption"]["id"], 4)
    await world.give_back("r-1")
    await hold(world, 1)
    membership = (await world.ask("grocer", '{ membership(ref: {externalId: "ann"}) { id } }'))["membership"]["id"]
    quick, slow = await both(world, ACTIVITY, id=membership)
    assert "errors" not in quick
    assert quick == slow
    kinds = {node["__typename"] for node in quick["data"]["node"]["activity"]["nodes"]}
    assert kinds >= {"Earning", "PurchaseReturn"}
    assert "ActivityConnection!" in compiled
    assert "[Wallet!]!" in compiled


async def test_fragments_and_nulls_are_the_same(world: World, compiled: list[str]) -> None:
    quick, slow = await both(world, PROGRAMMES)
    assert quick == slow
    assert compiled == ["[Programme!]!", "[ConversionRate!]!"]


async def test_a_value_that_is_missing_where_it_must_not_be_is_told_as_graphql_core_tells_it(
    world: World, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.coalition import graph

    shown = graph.show_programme.__wrapped__

    def broken(programme: Any) -> Any:
        made = shown(programme)
        made.name = None
        return made

    monkeypatch.setattr(graph, "show_programme", broken)
    answer = (await world.post("grocer", "{ programmes { code name } }")).json()
    assert answer["data"] is None
    assert answer["errors"][0]["path"] == ["programmes", 0, "name"]
    assert "[Programme!]!" not in compiled


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the root fields that were run without graphql-core looking for them."""
    names: list[str] = []
    run = executor.DocumentExecutor._execute_root

    async def noting(self: executor.DocumentExecutor, root: executor.Root) -> Any:
        names.append(str(root.path.key))
        return await run(self, root)

    monkeypatch.setattr(executor.DocumentExecutor, "_execute_root", noting)
    return names


ONE = "mutation($input: PurchaseInput!) { mine: recordPurchase(input: $input) { errors { code } earning { points @include(if: true) } } }"
MANY = "mutation($input: [PurchaseInput!]!) { recordPurchases(input: $input) { earning { points @include(if: true) } } }"
FIND = "query($ref: MemberRef!) { membership(ref: $ref) { externalId @include(if: true) } }"
PAGE = "query($first: Int!, $after: String) { memberships(first: $first, after: $after) { nodes { externalId @include(if: true) } } }"


@pytest.mark.parametrize(
    ("query", "variables", "expected"),
    [
        (FIND, {"ref": {"externalId": "ann"}}, {"membership": {"externalId": "ann"}}),
        (FIND, {"ref": {"externalId": "nobody"}}, {"membership": None}),
        (PAGE, {"first": 5}, {"memberships": {"nodes": [{"externalId": "ann"}]}}),
        (PAGE, {"first": 5, "after": None}, {"memberships": {"nodes": [{"externalId": "ann"}]}}),
        (PAGE, {"first": 0}, None),
        (MANY, {"input": [{"n": 1}] * 1_001}, None),
    ],
)
async def test_one_root_field_is_answered_as_graphql_core_answers_it(
    world: World, direct: list[str], query: str, variables: dict[str, Any], expected: Any
) -> None:
    if "input" in variables:
        variables = {"input": [world.purchase("1.00") for _ in variables["input"]]}
    slow = (await world.post("grocer", query, **variables)).json()
    assert direct == []
    quick = (await world.post("grocer", query.replace(" @include(if: true)", ""), **variables)).json()
    assert len(direct) == 1
    for error in [*slow.get("errors", ()), *quick.get("errors", ())]:
        del error["locations"]  # the directive moves what stands behind it
    assert (quick["data"], quick.get("errors")) == (slow["data"], slow.get("errors"))
    assert quick["data"] == expected
    assert (quick.get("errors") is None) == (expected is not None)
    assert await world.transactions() == 0


async def test_one_root_field_under_another_name_posts_once(world: World, direct: list[str]) -> None:
    input = world.purchase("7.00")
    quick = (await world.post("grocer", ONE.replace(" @include(if: true)", ""), input=input)).json()
    assert direct == ["mine"]
    slow = (await world.post("grocer", ONE, input=input)).json()
    assert quick["data"] == slow["data"] == {"mine": {"errors": [], "earning": {"points": 7}}}
    assert await world.transactions() == 1


@pytest.mark.parametrize(
    "query",
    [
        '{ membership(ref: {externalId: "ann"}) { externalId } }',
        "query($ref: MemberRef!) { membership(ref: $ref) { externalId } programmes { code } }",
        "query($ref: MemberRef!) { ...Found } fragment Found on Query { membership(ref: $ref) { externalId } }",
    ],
)
async def test_what_is_no_single_field_with_variables_is_left_to_graphql_core(world: World, direct: list[str], query: str) -> None:
    variables = {"ref": {"externalId": "ann"}} if "$ref" in query else {}
    answer = (await world.post("grocer", query, **variables)).json()
    assert answer["data"]["membership"] == {"externalId": "ann"}
    assert direct == []
