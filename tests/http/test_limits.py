"""What one document may ask for: a clear no for what is too deep, too wide or too dear, before anything runs."""

import asyncio
import time
import tracemalloc
from typing import Any

import orjson
import pytest
from graphql import GraphQLInterfaceType, OperationDefinitionNode, get_introspection_query, parse

from gateway import context
from gateway.http import admission
from gateway.http.cost import CONNECTION, COST_MAX, LIST_SIZE, LIST_SIZES, WEIGHTS, compile_costs
from gateway.http.engine import Engine
from gateway.http.shape import ALIASES_MAX, DIRECTIVES_MAX, OPERATIONS_MAX
from gateway.schema import create_schema
from tests.world import World, engine

STORES = "{ partners(first: %d) { nodes { code stores(first: %d) { nodes { code name } } } } }"


def cost(text: str, **variables: Any) -> int:
    document = parse(text)
    operation = next(d for d in document.definitions if isinstance(d, OperationDefinitionNode))
    return compile_costs(engine()._schema, document)(operation)(variables, {"conversionRates": 2_000})


@pytest.mark.parametrize(
    ("text", "variables", "expected"),
    [
        ("{ programmes { code name } }", {}, 1 + LIST_SIZE * 2),
        ("{ partners(first: 10) { nodes { code } } }", {}, CONNECTION + 10 * (1 + 1)),
        ("query($n: Int!) { partners(first: $n) { nodes { code } } }", {"n": 7}, CONNECTION + 7 * 2),
        ("query($n: Int!) { partners(first: $n) { nodes { code } } }", {"n": -5}, CONNECTION),
        ("query($n: Int! = 100) { partners(first: $n) { nodes { code } } }", {}, CONNECTION + 100 * 2),
        ('{ _entities(representations: ["a", "b", "c"]) { ... on Partner { code } } }', {}, 1 + 3 * (10 + 1 + 1)),
        (STORES % (10, 100), {}, CONNECTION + 10 * (1 + (1 + CONNECTION + 100 * (1 + 2)))),
        ("{ ...F } fragment F on Query { programmes { code } }", {}, 1 + LIST_SIZE),
        (
            "mutation($i: [EnrolMemberInput!]!) { enrolMembers(input: $i) { errors { code } } }",
            {"i": [1] * 8},
            1 + 8 * (1 + 1 + LIST_SIZE),
        ),
        ("{ conversionRates { minimum rate { take } } }", {}, 1 + 2_000 * (1 + 1 + 1)),
        ("{ me { consents { purpose } } }", {}, 1 + WEIGHTS["consents"] + LIST_SIZES["consents"]),
        (
            "mutation($i: [PurchaseInput!]!) { a: recordPurchases(input: $i) { errors { code } } recordPurchases(input: $i) { __typename } }",
            {"i": [{"lines": [{}] * 70}, {"lines": None}, {}, None, {"lines": {}}]},
            (1 + 5 + 71 + 5 * (1 + LIST_SIZE)) + (1 + 5 + 71 + 5),
        ),
        (
            "mutation($l: [PurchaseLineInput!]) { recordPurchase(input: {lines: $l}) { errors { code } } "
            "a: recordPurchase(input: {lines: [{sku: 1}, {sku: 2}]}) { __typename } }",
            {"l": [1, 2, 3]},
            (1 + 3 + 1 + LIST_SIZE) + (1 + 2 + 1),
        ),
        ("query($r: [MemberRef!]! = [{card: 1}, {card: 2}]) { membershipsByRef(refs: $r) { id } }", {}, 1 + 2 + 2),
        ("query($n: Int!) { partners(first: $n) { nodes { code } } }", {"n": 200.0}, CONNECTION + 200 * 2),
        ('{ node(id: "txn_1") { ... on Earning { proof { leaf } } } }', {}, 1 + WEIGHTS["proof"] + 1),
    ],
)
def test_the_cost_is_one_a_field_times_the_lists_around_it(text: str, variables: dict[str, Any], expected: int) -> None:
    assert cost(text, **variables) == expected


async def test_what_is_too_dear_is_refused_with_its_cost_and_nothing_runs(world: World) -> None:
    dear = STORES % (1000, 1000)
    answer = await world.post(await world.operator(), dear)
    error = answer.json()["errors"][0]
    assert error["extensions"]["code"] == "COST_TOO_HIGH"
    assert str(cost(dear)) in error["message"]
    assert str(COST_MAX) in error["message"]
    assert "data" not in answer.json()


def test_the_largest_batch_with_all_that_it_answers_is_not_too_dear() -> None:
    everything = """mutation($i: [PurchaseInput!]!) { recordPurchases(input: $i) { errors { code message path } earning { id points
      occurredAt period programme { code name } purchase { id receipt total { amount currency } } explanation { rule points } } } }"""
    assert cost(everything, i=[None] * 1_000) < COST_MAX
    assert cost("query IntrospectionQuery " + get_introspection_query().split("IntrospectionQuery", 1)[1]) < COST_MAX


def test_the_schema_costs_what_telling_it_takes() -> None:
    once = cost("{ __schema { types { name fields { name args { name } } } } }")
    assert once > WEIGHTS["__schema"] + 50
    assert cost("{ __schema { types { name } } }") < once < cost("query " + get_introspection_query().split("IntrospectionQuery", 1)[1])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{ programmes { issuer { contracts { programme { issuer { code } } } } } }", None),
        ("{ programmes " + "{ issuer { contracts { programme " * 7 + "{ code }" + " } } }" * 7 + " }", "levels deep"),
        ("{ " + " ".join(f"a{n}: programmes {{ code }}" for n in range(ALIASES_MAX + 1)) + " }", "other names"),
        ("{ programmes { code " + " ".join(["name" + " @include(if: true)" * (DIRECTIVES_MAX // 10)] * 11) + " } }", "directives"),
        (
            "{ ...F0 } "
            + " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(40)),
            "selections",
        ),
        (
            "{ programmes { issuer { ...F0 } } } "
            + " ".join(f"fragment F{n} on Partner {{ contracts {{ programme {{ issuer {{ ...F{n + 1} }} }} }} }}" for n in range(8))
            + " fragment F8 on Partner { code }",
            "levels deep",
        ),
        ("{" + " programmes { code }" * 480 + " }", "programmes more than 12 times"),
        ("{ ...A ...A } fragment A on Query {" + " ... on Query { programmes { code } }" * 7 + " }", "programmes more than 12 times"),
        ("query($n: [Int!] = [" + "1 " * 2_000 + "]) { programmes { code } }", "2000 tokens"),
        (" ".join(f"query Q{n} {{ programmes {{ code }} }}" for n in range(OPERATIONS_MAX + 1)), f"{OPERATIONS_MAX} operations"),
        (
            " ".join(f"query Q{n} {{ " + "...A " * 12 + "}" for n in range(OPERATIONS_MAX))
            + " fragment A on Query { programmes { ...P } conversionRates { from { ...P } to { ...P } } }"
            + " fragment P on Programme { id code name custody refundPolicy pendingDays spendMost spendMostADay transferable }",
            "selections",
        ),
        ("{ __typename } " + " ".join(f"fragment F{n} on Query {{ __typename }}" for n in range(51)), "50 fragments"),
        (
            "{ ...A ...A } fragment A on Query { " + " ".join(f"a{n}: programmes {{ code }}" for n in range(16)) + " }",
            "other names",
        ),
    ],
)
async def test_what_is_too_deep_or_too_wide_is_refused_in_words(world: World, text: str, words: str | None) -> None:
    answer = (await world.post(await world.operator(), text)).json()
    if words is None:
        assert "errors" not in answer
    else:
        assert words in answer["errors"][0]["message"]
        assert "data" not in answer


async def test_graphiql_can_ask_for_the_schema(world: World) -> None:
    answer = (await world.post(await world.operator(), get_introspection_query(descriptions=True))).json()
    assert "errors" not in answer
    assert answer["data"]["__schema"]["queryType"]["name"] == "Query"


@pytest.mark.parametrize("named", ["{ %s: programmes { code } }", "query %s { programmes { code } }"])
async def test_names_that_are_repeated_in_the_answer_are_short(world: World, named: str) -> None:
    assert (await world.post("grocer", named % ("a" * 64))).json()["data"]
    refused = (await world.post("grocer", named % ("a" * 65))).json()
    assert refused["errors"][0]["extensions"]["code"] == "BAD_DOCUMENT"
    assert "longer than 64" in refused["errors"][0]["message"]


@pytest.mark.parametrize(
    "variables",
    [
        {"i": {f"{n}": 1 for n in range(300_000)}},
        {"i": {"x" * 3_000_000: 1}},
        {"i": {"externalId": "x" * 3_000_000, **{f"{n}": 1 for n in range(60)}}},
    ],
    ids=["keys", "a key", "a value"],
)
async def test_wrong_variables_are_told_in_a_few_words_however_large_they_are_and_paid_for(
    world: World, variables: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "BYTES_FOR_A_POINT", 1)
    query = "mutation($i: EnrolMemberInput!) { enrolMember(input: $i) { errors { code } } }"
    headers = {"Authorization": f"Bearer {await world.token('grocer')}", "Content-Type": "application/json"}
    body = orjson.dumps({"query": query, "variables": variables})  # what writing it takes is the client's
    began = time.process_time()
    answer = await world.http.post("/graphql", content=body, headers=headers)
    assert time.process_time() - began < 1.0
    assert answer.json()["errors"][0]["extensions"]["code"] == "BAD_INPUT"
    assert len(answer.content) < 5_000
    again = await world.post("grocer", query, **variables)
    assert (again.status_code, again.json()["errors"][0]["extensions"]["code"]) == (429, "THROTTLED")


async def test_no_read_waits_for_another_of_the_same_request(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one at a time, a read within a read would wait for ever."""
    monkeypatch.setattr(context, "READS_AT_ONCE", 1)
    await world.record("25.00")
    whole = """{ memberByCard(card: "CARD-1") { id since person { name } consents { id }
      memberships { id externalId person { name } partner { code contracts { version } stores(first: 3) { nodes { code } } } }
      wallets { available programme { code } history(first: 3) { nodes { transaction } } }
      activity(first: 5) { nodes { __typename ... on Earning { purchase { receipt } explanation { rule } } } } }
      partners(first: 3) { nodes { code } } period(month: "2026-09") { state } }"""
    async with asyncio.timeout(10):
        found = await world.ask(await world.operator(), whole)
        assert found["memberByCard"]["activity"]["nodes"][0]["__typename"] == "Earning"
        native = "{ membership(ref: {externalId: \"ann\"}) { nativeBalance { points } wallets { available } activity(first: 2) { nodes { points } } } }"
        assert (await world.ask("airline", native))["membership"]["nativeBalance"]


async def test_the_text_for_routers_is_printed_once_and_paid_for(world: World) -> None:
    found = await world.post("grocer", "{ _service { sdl } }")
    assert "type Membership" in found.json()["data"]["_service"]["sdl"]
    assert found.json()["extensions"]["cost"]["requestedQueryCost"] > 100
    many = "{ " + " ".join(f"a{n}: _service {{ sdl }}" for n in range(30)) + " }"
    began = time.process_time()
    assert len((await world.post("grocer", many)).json()["data"]) == 30
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("where", ["variables", "extensions"])
async def test_a_body_of_brackets_is_not_read_and_what_nothing_declares_is_not_kept(world: World, where: str) -> None:
    headers = {"Authorization": f"Bearer {await world.token('grocer')}"}

    async def asked(brackets: int) -> Any:
        body = {"query": "{ programmes { code } }", where: {"z": [[]] * brackets}}
        return await world.http.post("/graphql", json=body, headers=headers)

    assert (await asked(50_000)).status_code == 200
    refused = await asked(70_000)
    assert (refused.status_code, refused.json()["errors"][0]["extensions"]["code"]) == (413, "BODY_TOO_LARGE")


async def test_the_schema_is_told_a_few_times_at_once_and_no_more(world: World) -> None:
    told = get_introspection_query()
    assert (await world.post("grocer", told)).json()["data"]["__schema"]
    body = told[told.index("__schema") : told.index("fragment")].rstrip().removesuffix("}")
    many = "{ " + " ".join(f"a{n}: {body}" for n in range(12)) + " } " + told[told.index("fragment") :]
    refused = (await world.post("grocer", many)).json()
    assert refused["errors"][0]["message"] == "The document asks for __schema and __type more than 2 times."


def nested(operations: int, last: str) -> str:
    """Operations that spread a fragment twelve times, which spreads another one as often."""
    asked = " ".join(f"query q{n} {{ ...a }}" for n in range(operations))
    return f"{asked} fragment a on Query {{ {'...b ' * 12} }} fragment b on Query {{ {'...c ' * 12} }} fragment c on Query {{ {last} }}"


def test_a_fragment_costs_the_same_wherever_it_is_spread_and_as_much_as_if_it_were_written_out() -> None:
    for last, once in (("partner { code }", 2), ("partners(first: 7) { nodes { code } }", CONNECTION + 14)):
        assert cost(nested(1, last)) == 144 * once
    text = "query($n: Int!) { ...a ...a } fragment a on Query { ...b partner { code } } fragment b on Query { partners(first: $n) { nodes { code } } }"
    assert cost(text, n=5) == 2 * (CONNECTION + 10 + 2)
    assert cost(text, n=9) == 2 * (CONNECTION + 18 + 2)


def test_what_is_told_of_the_schema_costs_as_much_as_there_is_of_it() -> None:
    schema = engine()._schema
    node = schema.type_map["Node"]
    assert isinstance(node, GraphQLInterfaceType)
    types, many = schema.get_possible_types(node), cost('{ __type(name: "Node") { possibleTypes { fields { name } } } }')
    assert many >= sum(1 + len(each.fields) for each in types)
    query = schema.query_type
    assert query is not None
    assert cost('{ __type(name: "Query") { fields { args { name } } } }') >= sum(1 + len(each.args) for each in query.fields.values())
    assert cost("{ __schema { types { fields { name } } } }") >= sum(len(getattr(each, "fields", ())) for each in schema.type_map.values())
    assert COST_MAX / 10 < cost("query " + get_introspection_query().split("IntrospectionQuery", 1)[1]) < COST_MAX / 2


async def test_it_is_told_of_every_type_whether_it_is_one_of(world: World) -> None:
    text = '{ __type(name: "Node") { fields { type { isOneOf } } } ref: __type(name: "MemberRef") { isOneOf } }'
    told = (await world.ask("grocer", text))
    assert [field["type"]["isOneOf"] for field in told["__type"]["fields"]] == [None]
    assert told["ref"]["isOneOf"] is True


def test_so_much_is_remembered_of_documents_as_they_come_to_with_their_fragments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.http.engine.REMEMBERED_CHARS", 20_000)
    own = Engine(create_schema())
    for n in range(20):
        own.prepare(f"query q{n} {{ {'...a ' * 12} }} fragment a on Query {{ partner {{ code name stores(first: 1) {{ nodes {{ id }} }} }} }}")
    assert 3 < len(own._free) < 15
    assert sum(each.size for each in own._free.values()) == own._free_chars <= 20_000


def test_what_is_remembered_of_a_document_is_about_as_long_as_its_text() -> None:
    many = " ".join(f"query q{n} {{ {'...a ' * 12} }}" for n in range(15))
    last = "partner { code name stores(first: 1) { nodes { id code name } } contracts { id version issuePrice redeemPrice serviceFee } }"
    text = f"{many} fragment a on Query {{ {last} }}"
    engine().prepare("{ partner { code } }")
    tracemalloc.start()
    try:
        kept = engine().prepare(text)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(kept.costs) == 15
    assert taken < 500 * len(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{ partner { id } } fragment a on Partner { " + "id " * 400 + "}", "The fragment a is spread nowhere."),
        ("{ partner { id } } fragment a on Partner { ...b } fragment b on Partner { ...a }", "The fragment a is spread nowhere."),
        ("{ partner { ...a } } fragment a on Partner { id ...b } fragment b on Partner { id ...a }", "The fragment a spreads itself."),
        ("{ __schema { types { a: name } } }", "What is told of the schema has no other names."),
        ("{ __schema { types { ...a } } } fragment a on __Type { b: kind }", "What is told of the schema has no other names."),
        (
            " ".join(["{", *(f'a{n}: __type(name: "Node") {{ name }}' for n in range(3)), "}"]),
            "The document asks for __schema and __type more than 2 times.",
        ),
        (
            "{ partner { ...a } } fragment a on Partner { " + "contracts { id } " * 300 + "} fragment a on Partner { id }",
            "Two fragments have the same name.",
        ),
    ],
)
async def test_what_could_take_long_to_compare_or_to_tell_is_refused_before_anything_is_compared(
    world: World, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    validated: list[Any] = []
    monkeypatch.setattr("gateway.http.engine.validate", lambda *given, **named: validated.append(given) or [])
    answer = await world.post("grocer", text)
    assert [error["message"] for error in answer.json()["errors"]] == [told]
    assert validated == []
