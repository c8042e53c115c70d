"""What operations cost, who has spent its budget, and how often strangers knock."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from gateway.access.caller import Caller
from gateway.database import Database
from gateway.http import budget
from gateway.http.budget import PLANS, STRANGERS, Plan, network_of
from gateway.http.documents import document_id
from gateway.http.refusing import RequestRefused
from tests.access.consenting import BACK, client_with_page
from tests.access.test_oauth import authorization
from tests.http.test_door import PARTNER, code_of
from tests.points import ann_logs_in
from tests.world import World


async def test_every_answer_says_what_it_cost_and_what_is_left(world: World) -> None:
    first = (await world.post("grocer", PARTNER)).json()["extensions"]["cost"]
    plan = PLANS["partner"]
    assert first["requestedQueryCost"] == first["actualQueryCost"] == 2
    status = first["throttleStatus"]
    assert (status["maximumAvailable"], status["restoreRate"]) == (plan.maximum, plan.restore_rate)
    assert 0 < status["currentlyAvailable"] <= plan.maximum


async def test_who_has_spent_its_budget_waits_and_nobody_else_does(world: World) -> None:
    """A member's budget, which is the smallest; it is shared by the processes, as two worlds on one database are."""
    ann, other_member = await ann_logs_in(world), uuid4()
    expensive = "query($r: [_Any!]!) { _entities(representations: $r) { ... on Programme { id code name } } }"
    paid = refused = 0
    while not refused:
        answer = await world.post(ann, expensive, r=[{"__typename": "Programme", "id": "prg_x"}] * 1000)
        if answer.status_code == 429:
            refused = int(answer.headers["retry-after"])
            cost = answer.json()["extensions"]["cost"]
            assert code_of(answer) == "THROTTLED"
            assert "data" not in answer.json()
            assert cost["actualQueryCost"] == 0
            assert cost["requestedQueryCost"] > cost["throttleStatus"]["currentlyAvailable"]
        else:
            paid += answer.json()["extensions"]["cost"]["actualQueryCost"]
        assert paid < 2 * PLANS["member"].maximum
    assert paid >= PLANS["member"].maximum * 0.8
    assert 1 <= refused <= 4
    assert (await world.post("grocer", PARTNER)).status_code == 200
    other = budget.Budgets(await opened(world))
    same = (await world.sql("select member_id from card where number = 'CARD-1'"))[0][0]
    with pytest.raises(RequestRefused, match="are left"):
        await other.charge(Caller("member", same, "member-app", frozenset()), 40_000)
    assert (await other.charge(Caller("member", other_member, "member-app", frozenset()), 40_000))["actualQueryCost"] == 40_000


async def test_a_budget_is_restored_when_the_databases_clock_was_ahead_and_is_right_again(world: World) -> None:
    plan, database = Plan(1_000, 10), await opened(world)

    async def take() -> tuple[float, float]:
        async with database.reading() as tx:
            row = await tx.one(
                budget.sql.take_budget, holder="m", most=plan.maximum, rate=plan.restore_rate, needed=plan.maximum, wanted=plan.maximum
            )
            return row["taken"], row["left_over"]

    assert await take() == (1_000, 0)
    await world.sql("update budget set as_of = clock_timestamp() + interval '1 day' where holder = 'm'")
    assert await take() == (0, 0)
    await world.sql("update budget set as_of = as_of - interval '200 seconds' where holder = 'm'")
    assert await take() == (1_000, 0)
    await world.sql("update budget set as_of = clock_timestamp() + interval '50 seconds' where holder = 'm'")  # somebody else's turn
    assert await take() == (0, 0)
    assert (await world.sql("select as_of > clock_timestamp() from budget where holder = 'm'"))[0][0]


async def test_a_document_that_nobody_registered_is_paid_for_by_who_asks_for_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PLANS, "partner", Plan(1_000, 1))
    headers = {"Authorization": f"Bearer {await world.token('grocer')}"}

    async def ask(n: int) -> str | None:
        return code_of(await world.http.post("/graphql", json={"documentId": document_id(f"{{ a{n} }}")}, headers=headers))

    told = [await ask(n) for n in range(130)]
    assert told[:90] == ["DOCUMENT_UNKNOWN"] * 90
    assert told[-1] == "THROTTLED"
    assert (await world.post("fuel", PARTNER)).status_code == 200


async def test_what_waits_for_more_of_the_budget_gives_nothing_of_it_back(world: World) -> None:
    """Small operations that are sent while a large one waits for the database do not count for less."""
    plan, caller = PLANS["member"], Caller("member", uuid4(), "member-app", frozenset())
    budgets = budget.Budgets(await opened(world))
    await budgets.charge(caller, 1)
    frozen = "update budget set as_of = clock_timestamp() + interval '50 seconds' where holder like 'member %'"
    await world.sql(frozen)
    connection = await asyncpg.connect(world.dsn)
    async with connection.transaction():
        await connection.execute(frozen)
        large = asyncio.create_task(budgets.charge(caller, 30_000))
        await asyncio.sleep(0.1)
        small = [asyncio.create_task(budgets.charge(caller, 100)) for _ in range(400)]
        await asyncio.sleep(0.1)
    await connection.close()
    results = await asyncio.gather(large, *small, return_exceptions=True)
    spent = 1 + sum(result["actualQueryCost"] for result in results if isinstance(result, dict))
    left = (await world.sql("select available from budget where holder like 'member %'"))[0][0]
    assert 30_000 < spent <= plan.maximum - left


async def opened(world: World) -> Any:
    database = Database(world.dsn, 2)
    await database.open()
    return database


async def test_an_operation_above_the_whole_budget_is_told_so_at_once(world: World) -> None:
    deep = "query($r: [_Any!]!) { _entities(representations: $r) { ... on Programme { id code name expiry { afterMonths } issuer { id code name status } custody refundPolicy pendingDays spendMost transferable a: id b: id c: id d: id e: id f: id } } }"
    ann = await ann_logs_in(world)
    answer = await world.post(ann, deep, r=[{"__typename": "Programme", "id": "x"}] * 1600)
    assert (answer.status_code, code_of(answer)) == (200, "COST_TOO_HIGH")  # as for any document that is refused
    assert "data" not in answer.json()


async def test_a_stranger_logs_in_and_pushes_so_often_from_one_address_and_no_more(world: World) -> None:
    query, _ = authorization(world, client_id="member-app", redirect_uri="com.example.loyalty:/callback")

    async def push() -> httpx.Response:
        return await world.http.post("/oauth/par", data=query)

    answers = [answer for _ in range(20) for answer in await asyncio.gather(*(push() for _ in range(20)))]
    accepted = [answer for answer in answers if answer.status_code == 201]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(accepted) + len(refused) == 400
    assert STRANGERS.maximum <= len(accepted) < 400
    assert (await world.sql("select count(*) from pushed_request"))[0][0] == len(accepted)
    assert refused[0].json()["error"] == "temporarily_unavailable"
    # Budgets go by the database's clock, which stands still from here on.
    await world.sql("update budget set available = 0, as_of = clock_timestamp() + interval '50 seconds' where holder = 'address 127.0.0.1'")
    login = await world.http.post("/oauth/authorize", params=query, data={"login": "olga", "password": "guess"})
    assert login.status_code == 429
    assert "from your address" in login.text
    assert (await world.sql("select count(*) from audit_log"))[0][0] == 0
    # Whoever says who it is, and who only looks at the page, is not counted.
    assert (await world.http.get("/oauth/authorize", params=query)).status_code == 200
    assert await world.token("grocer")
    # As if the time had passed that the answer named.
    seconds = timedelta(seconds=int(login.headers["retry-after"]))
    await world.sql("update budget set as_of = clock_timestamp() - $1::interval where holder = 'address 127.0.0.1'", seconds)
    login = await world.http.post("/oauth/authorize", params=query, data={"login": "olga", "password": "guess"})
    assert login.status_code == 401


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("::ffff:198.51.100.7", "::ffff:203.0.113.9", False),
        ("::ffff:198.51.100.7", "198.51.100.7", True),
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
    ],
)
def test_an_address_is_known_by_what_one_customer_has(one: str, other: str, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same


async def test_clients_push_so_many_requests_of_so_many_characters(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "PUSHES", Plan(4, 1))
    secret = await client_with_page(world)
    query, _ = authorization(world, client_id=secret[0], redirect_uri=BACK)
    long = await world.http.post("/oauth/par", data={**query, "state": "x" * 5_000}, auth=secret)
    assert (long.status_code, long.json()["error"]) == (400, "invalid_request")
    assert "4096 bytes" in long.json()["error_description"]
    assert await world.sql("select from pushed_request") == []
    answers = [(await world.http.post("/oauth/par", data=query, auth=secret)).status_code for _ in range(8)]
    assert answers[-1] == 429
    assert (await world.sql("select count(*) from pushed_request"))[0][0] == answers.count(201)
