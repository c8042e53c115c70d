"""What an operator does to the coalition through the API: partners with their stores, programmes, prices, rates."""

import asyncio
import tracemalloc
from datetime import date
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway import ids
from partners.protocols import rest_json
from tests.conversion.exchanging import fault
from tests.house.test_embedded import Gateway
from tests.points import ENROL
from tests.world import World

ONBOARD = """mutation($i: OnboardPartnerInput!) { onboardPartner(input: $i) {
  partner { id code stores(first: 9) { nodes { code name } } } errors { code path } } }"""
CREATE = """mutation($i: CreateProgrammeInput!) { createProgramme(input: $i) {
  programme { code name custody refundPolicy expiry { afterMonths } } errors { code path } } }"""
PUBLISH = """mutation($i: PublishContractInput!) { publishContract(input: $i) {
  contract { id } errors { code path } } }"""
RATE = """mutation($i: PublishRateInput!) { publishConversionRate(input: $i) { rate { rate { take give } } errors { code path } } }"""
BALANCE = "query($ref: MemberRef!) { membership(ref: $ref) { nativeBalance { availability points } } }"


async def told(world: World, document: str, **input: Any) -> dict[str, Any]:
    payload: dict[str, Any] = next(iter((await world.ask(await world.operator(), document, i=input)).values()))
    return payload


async def count(world: World, table: str) -> int:
    return int((await world.sql(f"select count(*) from {table}"))[0][0])


async def test_a_partner_gets_its_stores_and_purchases_name_them(world: World) -> None:
    stores = [{"code": "s1", "name": "Main Street"}, {"code": "s2", "name": "Second Street"}]
    made = await told(world, ONBOARD, code="grocer", name="The Grocer", stores=stores)
    assert (made["errors"], made["partner"]["stores"]["nodes"]) == ([], stores)
    renamed = await told(world, ONBOARD, code="grocer", name="The Grocer", stores=[{"code": "s2", "name": "Harbour"}])
    assert renamed["partner"]["stores"]["nodes"] == [stores[0], {"code": "s2", "name": "Harbour"}]
    assert (await world.record("5.00", store="s2"))["errors"] == []


async def test_a_programme_that_a_partner_keeps_is_created_and_converted_into(world: World) -> None:
    hotel = (await told(world, ONBOARD, code="hotel", name="The Hotel", protocol="rest_json", endpoint=world.airline_url))[
        "partner"
    ]
    terms = {"programme": "MER", "currency": "USD", "validFrom": "2026-01-01", "conversionPrice": "0.01"}
    assert (await told(world, PUBLISH, partner=hotel["id"], **terms))["errors"] == []
    made = await told(world, CREATE, code="NIGHTS", name="Nights", custody="PARTNER", issuer=hotel["id"])
    assert made["programme"] == {
        "code": "NIGHTS",
        "name": "Nights",
        "custody": "PARTNER",
        "refundPolicy": "ALLOW_DEBT",
        "expiry": None,
    }
    rate = {"take": 50, "give": 1, "minimum": 50, "increment": 50, "validFrom": "2026-01-01T00:00:00Z"}
    assert (await told(world, RATE, **{"from": "MER", "to": "NIGHTS"}, **rate))["errors"] == []
    again = await told(world, RATE, **{"from": "MER", "to": "NIGHTS"}, **rate)
    assert again["errors"] == [{"code": "STATE_CONFLICT", "path": ["validFrom"]}]


async def test_a_partner_that_moves_is_reached_at_its_new_address_at_once(world: World) -> None:
    async def availability() -> str:
        found = (await world.ask("airline", BALANCE, ref={"externalId": "ann"}))["membership"]
        return str(found["nativeBalance"]["availability"])

    moves = {"code": "airline", "name": "The Airline", "protocol": "rest_json"}
    assert await availability() == "AVAILABLE"
    await told(world, ONBOARD, **moves, endpoint="http://127.0.0.1:9")
    assert await availability() == "UNAVAILABLE"
    await told(world, ONBOARD, **moves, endpoint=world.airline_url)
    assert await availability() == "AVAILABLE"


@pytest.mark.parametrize("mode", ["drip", "bomb"])
async def test_a_partner_that_drips_or_floods_keeps_nothing_else_from_the_member(
    world: World, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(rest_json, "TIMEOUT_SECONDS", 0.6)
    await world.record("5.00")
    await fault(world, mode)
    query = "query($ref: MemberRef!) { membership(ref: $ref) { wallets { available } nativeBalance { availability points } } }"
    await world.token("airline")
    tracemalloc.start()
    async with asyncio.timeout(5):
        found = (await world.ask("airline", query, ref={"externalId": "ann"}))["membership"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
    assert found["nativeBalance"] == {"availability": "UNAVAILABLE", "points": None}
    assert found["wallets"][0]["available"] == 5


async def test_a_partner_keeps_its_connection_until_null_takes_it_away(world: World) -> None:
    async def connection() -> tuple[str | None, ...]:
        return tuple((await world.sql("select protocol, endpoint from partner where code = 'airline'"))[0])

    airline = {"code": "airline", "name": "The Airline"}
    await told(world, ONBOARD, **airline)
    assert await connection() == ("rest_json", world.airline_url)
    half = await told(world, ONBOARD, **airline, protocol="rest_json", endpoint=None)
    assert half["errors"] == [{"code": "INPUT_NOT_ACCEPTED", "path": ["protocol"]}]
    assert await connection() == ("rest_json", world.airline_url)
    assert (await told(world, ONBOARD, **airline, protocol=None, endpoint=None))["errors"] == []
    assert await connection() == (None, None)


async def test_stores_come_by_their_codes_page_by_page_and_none_twice(world: World) -> None:
    drawn = ["b", "a10", "a9", "Z", "c", "a1"]
    await told(world, ONBOARD, code="chain", name="A Chain", stores=[{"code": each, "name": each} for each in drawn])
    query = """query($id: ID!, $after: String) { node(id: $id) { ... on Partner { stores(first: 2, after: $after) {
      nodes { code } pageInfo { hasNextPage endCursor } } } } }"""
    chain = ids.show("ptn", (await world.sql("select partner_id from partner where code = 'chain'"))[0][0])
    seen: list[str] = []
    after, more = None, True
    while more:
        page = (await world.ask(await world.operator(), query, id=chain, after=after))["node"]["stores"]
        seen += [each["code"] for each in page["nodes"]]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
    assert [code for code in seen if code in drawn] == sorted(drawn) == seen


BAD_PARTNERS: list[tuple[dict[str, Any], list[str]]] = [
    ({"code": "X"}, ["code"]),
    ({"name": " "}, ["name"]),
    ({"name": "\u200b"}, ["name"]),
    ({"name": "\u2800\u3164 "}, ["name"]),
    ({"name": "The \x1b[2JBakery"}, ["name"]),
    ({"name": "The \u202eyrekaB"}, ["name"]),
    ({"name": "B" * 101}, ["name"]),
    ({"protocol": "soap"}, ["protocol"]),
    ({"endpoint": "file:///etc/passwd"}, ["endpoint"]),
    ({"endpoint": "nowhere"}, ["endpoint"]),
    ({"endpoint": "http://bakery.example/api"}, ["endpoint"]),
    ({"endpoint": "https://elsewhere.example/api"}, ["endpoint"]),
    ({"endpoint": "https://bakery.example@elsewhere.example/api"}, ["endpoint"]),
    ({"endpoint": "http://169.254.169.254/latest"}, ["endpoint"]),
    ({"endpoint": "https://bakery.example/api\n"}, ["endpoint"]),
    ({"endpoint": " https://bakery.example/api"}, ["endpoint"]),
    ({"endpoint": "https://bakery.example/\tapi"}, ["endpoint"]),
    ({"endpoint": "http://[x"}, ["endpoint"]),
    ({"stores": [{"code": "a", "name": "A"}, {"code": "", "name": "B"}]}, ["stores", "1", "code"]),
    ({"stores": [{"code": "a", "name": "A\u0007"}]}, ["stores", "0", "name"]),
    ({"stores": [{"code": "a", "name": "A"}, {"code": "a", "name": "B"}]}, ["stores", "1", "code"]),
]


async def test_a_partner_that_is_described_wrongly_is_refused_whole(world: World) -> None:
    before = await count(world, "partner"), await count(world, "store")
    described = {"code": "bakery", "name": "The Bakery", "protocol": "rest_json", "endpoint": "https://bakery.example/api"}
    for changes, path in BAD_PARTNERS:
        refused = await told(world, ONBOARD, **{**described, **changes})
        assert refused == {"partner": None, "errors": [{"code": "INPUT_NOT_ACCEPTED", "path": path}]}
    assert (await count(world, "partner"), await count(world, "store")) == before


BAD_PROGRAMMES: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"code": "nights"}, "INPUT_NOT_ACCEPTED", ["code"]),
    ({"code": "MER"}, "STATE_CONFLICT", ["code"]),
    ({"name": ""}, "INPUT_NOT_ACCEPTED", ["name"]),
    ({"name": "Nights\n"}, "INPUT_NOT_ACCEPTED", ["name"]),
    ({"custody": "PARTNER"}, "INPUT_NOT_ACCEPTED", ["issuer"]),
    ({"issuer": "ptn_00000000000000000000000000"}, "INPUT_NOT_ACCEPTED", ["issuer"]),
    ({"expiresAfterMonths": 0}, "INPUT_NOT_ACCEPTED", ["expiresAfterMonths"]),
]


async def test_a_programme_that_is_described_wrongly_is_not_created(world: World) -> None:
    before = await count(world, "programme")
    for changes, code, path in BAD_PROGRAMMES:
        refused = await told(world, CREATE, **{"code": "NEW", "name": "New", "custody": "LEDGER", **changes})
        assert refused == {"programme": None, "errors": [{"code": code, "path": path}]}
    assert await count(world, "programme") == before


BAD_PRICES: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"issuePrice": "-0.01"}, "INPUT_NOT_ACCEPTED", ["issuePrice"]),
    ({"earnRate": "much"}, "INPUT_NOT_ACCEPTED", ["earnRate"]),
    ({"programme": "XXX"}, "PROGRAMME_UNKNOWN", ["programme"]),
    ({"currency": "EUR"}, "INPUT_NOT_ACCEPTED", ["currency"]),
    ({"validFrom": "2026-01-01"}, "STATE_CONFLICT", ["validFrom"]),
]


async def test_prices_that_cannot_be_are_not_published(world: World) -> None:
    grocer = (await told(world, ONBOARD, code="grocer", name="The Grocer"))["partner"]["id"]
    before = await count(world, "contract")
    terms = {"partner": grocer, "programme": "MER", "currency": "USD", "validFrom": "2026-12-01", "earnRate": "1"}
    for changes, code, path in (*BAD_PRICES, ({"validFrom": "2062-12-01"}, "INPUT_NOT_ACCEPTED", ["validFrom"])):
        refused = await told(world, PUBLISH, **{**terms, **changes})
        assert refused == {"contract": None, "errors": [{"code": code, "path": path}]}
    assert await count(world, "contract") == before


async def test_a_rate_between_programmes_that_do_not_convert_is_not_published(world: World) -> None:
    before = await count(world, "conversion_rate")
    rate = {
        "from": "MER",
        "to": "SKY",
        "take": 50,
        "give": 1,
        "minimum": 50,
        "increment": 50,
        "validFrom": "2026-12-01T00:00:00Z",
    }
    for changes, path in (({"from": "XXX"}, ["from"]), ({"to": "XXX"}, ["to"]), ({"to": "MER", "from": "SKY"}, ["to"])):
        refused = await told(world, RATE, **{**rate, **changes})
        assert [e["path"] for e in refused["errors"]] == [path]
    for end in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"):  # which the database's driver takes for infinite
        answer = await world.post(await world.operator(), RATE, i={**rate, "validFrom": end})
        assert "end of the calendar" in answer.json()["errors"][0]["message"]
    assert await count(world, "conversion_rate") == before
    # Long ago and far ahead are moments like any other.
    for moment in ("0001-01-01T00:00:01Z", "9999-12-31T23:59:59Z"):
        assert (await told(world, RATE, **{**rate, "validFrom": moment}))["errors"] == []
    rates = await world.ask("fuel", "{ conversionRates { rate { take } validFrom } }")
    assert [each["rate"]["take"] for each in rates["conversionRates"]] == [200]


async def test_a_purchase_of_another_partners_member_is_refused_and_moves_nothing(world: World) -> None:
    await world.ask("fuel", ENROL, i={"externalId": "bob", "card": "CARD-2"})
    for member in ({"externalId": "bob"}, {"card": "CARD-2"}):
        refused = await world.record("10.00", member=member)
        assert [e["code"] for e in refused["errors"]] == ["MEMBER_UNKNOWN"]
    assert await world.transactions() == 0


async def test_two_operators_who_create_or_publish_the_same_at_once_are_told_so(world: World) -> None:
    await world.operator()
    made = await asyncio.gather(*(told(world, CREATE, code="TWICE", name="Twice", custody="LEDGER") for _ in range(6)))
    assert sorted([error["code"] for error in each["errors"]] for each in made) == [[], *[["STATE_CONFLICT"]] * 5]
    grocer = (await world.ask("grocer", "{ partner { id } }"))["partner"]["id"]
    terms = {"partner": grocer, "programme": "MER", "currency": "USD", "validFrom": "2027-01-01"}
    published = await asyncio.gather(*(told(world, PUBLISH, **terms) for _ in range(6)))
    assert sorted([error["code"] for error in each["errors"]] for each in published) == [[], *[["STATE_CONFLICT"]] * 5]
    assert (await world.sql("select count(*) from contract where valid_from = '2027-01-01'"))[0][0] == 1


@pytest.mark.parametrize("code", ["coalition", "manifest"])
async def test_no_partner_is_called_what_statements_call_something_else(world: World, code: str) -> None:
    before = await count(world, "partner")
    made = await told(world, ONBOARD, code=code, name="A Partner")
    assert made["errors"] == [{"code": "INPUT_NOT_ACCEPTED", "path": ["code"]}]
    assert await count(world, "partner") == before


@pytest.mark.parametrize(("name", "timezone", "currency", "told"), [
    ("Ours", "UTC", "JPY", "two decimals"),
    ("Ours", "UTC", "KWD", "two decimals"),
    ("Ours", "UTC", "euro", "three capitals"),
    ("Ours", "Europe/Wien", "EUR", "time zone"),
    ("\u200b", "UTC", "EUR", "printable"),
])  # fmt: skip
async def test_a_coalition_that_is_described_wrongly_is_not_created(world: World, name: str, timezone: str, currency: str, told: str) -> None:
    gateway = Gateway(world.data_dir)
    gateway.environment |= {"DATABASE_URL": world.dsn}
    before = await world.sql("select * from coalition")
    ran = gateway.run("coalition", "create", "--name", name, "--timezone", timezone, "--currency", currency)
    assert (ran.returncode, told in ran.stderr) == (1, True), ran.stderr
    assert await world.sql("select * from coalition") == before


@pytest.mark.parametrize("option", [
    "--started-on 0001-01", "--started-on 9999-12", "--started-on 0206-10", "--started-on 2206-10", "--backdating-days 0",
    "--backdating-days 3000000000",
])
async def test_a_coalition_of_another_age_is_not_created(dsn: str, tmp_path: Path, option: str) -> None:
    gateway = Gateway(tmp_path)
    gateway.environment |= {"DATABASE_URL": dsn}
    ran = gateway.run("coalition", "create", "--name", "Ours", *option.split())
    assert (ran.returncode, "between" in ran.stderr) == (1, True), ran.stderr
    assert gateway.run("coalition", "create", "--name", "Ours", "--started-on", "2025-12").returncode == 0
    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("select started_on from coalition") == date(2025, 12, 1)
    await connection.close()
