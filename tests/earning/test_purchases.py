"""Posting purchases over HTTP: what they bring, what repeats, and what is refused without moving anything."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from tests.world import RECORD, World

RECORD_MANY = "mutation($input: [PurchaseInput!]!) { recordPurchases(input: $input) { earning { points } errors { code path } } }"


async def test_a_purchase_brings_points_and_says_why(world: World) -> None:
    answer = await world.record("10.99")
    assert answer["errors"] == []
    assert answer["earning"]["points"] == 10
    assert answer["earning"]["programme"]["code"] == "MER"
    assert answer["earning"]["period"] == "2026-10"
    assert answer["earning"]["missedPeriod"] is None
    assert answer["earning"]["explanation"] == [
        {
            "rule": "base rate",
            "version": 1,
            "amount": "10.99",
            "multiplier": "1",
            "rounding": "down",
            "points": 10,
            "funder": "grocer",
        }
    ]
    assert await world.available() == 10
    assert await world.broken() == []


async def test_a_fractional_rate_rounds_down_once_a_purchase(world: World) -> None:
    assert (await world.record("3.99", who="fuel"))["earning"]["points"] == 1
    assert await world.available() == 1


async def test_a_purchase_of_nothing_is_recorded_and_brings_no_points(world: World) -> None:
    answer = await world.record("0.00")
    assert answer["errors"] == []
    assert answer["earning"]["points"] == 0
    assert (await world.sql("select count(*) from entry"))[0][0] == 0
    assert await world.broken() == []


async def test_the_same_request_twice_gets_the_same_answer_and_one_earning(world: World) -> None:
    input = world.purchase("25.00")
    first = await world.ask("grocer", RECORD, input=input)
    again = await world.ask("grocer", RECORD, input=input)
    assert again == first
    assert await world.available() == 25
    assert await world.transactions() == 1


async def test_two_clients_posting_the_same_purchase_at_once_get_the_same_answer_and_one_earning(world: World) -> None:
    input = world.purchase("25.00")
    answers = await asyncio.gather(*(world.ask("grocer", RECORD, input=input) for _ in range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert await world.available() == 25
    assert await world.transactions() == 1


async def test_the_same_key_with_other_content_is_refused_and_moves_nothing(world: World) -> None:
    input = world.purchase("25.00")
    await world.ask("grocer", RECORD, input=input)
    for changes in (
        {"member": {"externalId": "nobody"}},
        {"receipt": "other"},
        {"total": {"amount": "26.00", "currency": "USD"}},
    ):
        answer = (await world.ask("grocer", RECORD, input={**input, **changes}))["recordPurchase"]
        assert [e["code"] for e in answer["errors"]] == ["IDEMPOTENCY_KEY_REUSED"]
    assert await world.available() == 25


async def test_the_same_receipt_under_another_key_is_refused_and_the_refusal_is_kept(world: World) -> None:
    input = world.purchase("25.00")
    await world.ask("grocer", RECORD, input=input)
    again = {**input, "idempotencyKey": "another"}
    for _ in range(2):
        answer = (await world.ask("grocer", RECORD, input=again))["recordPurchase"]
        assert [e["code"] for e in answer["errors"]] == ["RECEIPT_ALREADY_POSTED"]
    assert await world.available() == 25


async def test_a_receipt_that_is_repeated_is_refused_and_its_neighbours_in_the_batch_are_posted_once(world: World) -> None:
    await world.record("5.00", receipt="known")
    replayed = world.purchase("10.00")
    await world.ask("grocer", RECORD, input=replayed)
    inputs = [world.purchase("20.00"), world.purchase("40.00", receipt="known"), replayed, world.purchase("80.00")]
    answers = (await world.ask("grocer", RECORD_MANY, input=inputs))["recordPurchases"]
    assert [a["earning"] and a["earning"]["points"] for a in answers] == [20, None, 10, 80]
    assert [e["code"] for a in answers for e in a["errors"]] == ["RECEIPT_ALREADY_POSTED"]
    assert await world.available() == 5 + 10 + 20 + 80
    assert await world.broken() == []


async def test_the_same_receipt_posted_at_once_under_many_keys_earns_once(world: World) -> None:
    inputs = [{**world.purchase("25.00"), "receipt": "one"} for _ in range(8)]
    answers = await asyncio.gather(*(world.ask("grocer", RECORD, input=input) for input in inputs))
    assert sum(answer["recordPurchase"]["errors"] == [] for answer in answers) == 1
    assert await world.available() == 25


@pytest.mark.parametrize(
    ("changes", "code", "path"),
    [
        ({"member": {"externalId": "nobody"}}, "MEMBER_UNKNOWN", ["member"]),
        ({"member": {"card": "CARD-99"}}, "MEMBER_UNKNOWN", ["member"]),
        ({"total": {"amount": "-1.00", "currency": "USD"}}, "AMOUNT_NOT_ACCEPTED", ["total", "amount"]),
        ({"total": {"amount": "1.001", "currency": "USD"}}, "AMOUNT_NOT_ACCEPTED", ["total", "amount"]),
        ({"total": {"amount": "1000000000000.00", "currency": "USD"}}, "AMOUNT_NOT_ACCEPTED", ["total", "amount"]),
        ({"total": {"amount": "1.00", "currency": "EUR"}}, "CURRENCY_NOT_ACCEPTED", ["total", "currency"]),
        ({"occurredAt": "2026-10-15T13:00:00Z"}, "OCCURRED_IN_FUTURE", ["occurredAt"]),
        ({"occurredAt": "2025-01-01T13:00:00Z"}, "OCCURRED_TOO_LONG_AGO", ["occurredAt"]),
        ({"occurredAt": "2025-12-31T12:00:00Z"}, "CURRENCY_NOT_ACCEPTED", ["occurredAt"]),
        ({"store": "nowhere"}, "STORE_UNKNOWN", ["store"]),
        ({"receipt": ""}, "INPUT_NOT_ACCEPTED", ["receipt"]),
        ({"total": {"amount": "9.9999999999999999999999999", "currency": "USD"}}, "AMOUNT_NOT_ACCEPTED", ["total", "amount"]),
        ({"member": {"externalId": "a\u0000"}}, "MEMBER_UNKNOWN", ["member"]),
        ({"idempotencyKey": "a\u0000"}, "INPUT_NOT_ACCEPTED", ["idempotencyKey"]),
        ({"receipt": "a\u0000b"}, "INPUT_NOT_ACCEPTED", ["receipt"]),
        ({"idempotencyKey": "x" * 201}, "INPUT_NOT_ACCEPTED", ["idempotencyKey"]),
    ],
)
async def test_bad_input_is_refused_naming_the_field_and_moves_nothing(
    world: World, changes: dict[str, Any], code: str, path: list[str]
) -> None:
    answer = await world.record("10.00", **changes)
    assert answer["earning"] is None
    assert [(e["code"], e["path"]) for e in answer["errors"]] == [(code, path)]
    assert await world.transactions() == 0
    assert await world.available() == 0


@pytest.mark.parametrize(
    "total",
    [
        {"amount": 1.5, "currency": "USD"},
        {"amount": "1e3", "currency": "USD"},
        {"amount": "NaN", "currency": "USD"},
        {"amount": "1.00", "currency": "usd"},
    ],
)
async def test_amounts_that_are_no_decimal_strings_are_errors_that_name_the_field(world: World, total: dict[str, Any]) -> None:
    answer = await world.post("grocer", RECORD, input=world.purchase("1.00", total=total))
    assert ".total." in str(answer.json()["errors"])
    assert "data" not in answer.json()
    assert await world.transactions() == 0


async def test_a_naive_time_is_an_error_that_names_the_field(world: World) -> None:
    answer = await world.post("grocer", RECORD, input=world.purchase("1.00", occurredAt="2026-10-15T12:00:00"))
    assert "occurredAt" in str(answer.json()["errors"])
    assert await world.transactions() == 0


async def test_a_batch_gives_each_purchase_its_own_outcome_in_order(world: World) -> None:
    inputs = [
        world.purchase("10.00"),
        world.purchase("10.00", member={"externalId": "nobody"}),
        world.purchase("20.00", receipt="same"),
        world.purchase("30.00", receipt="same"),
        world.purchase("40.00"),
    ]
    answers = (await world.ask("grocer", RECORD_MANY, input=inputs))["recordPurchases"]
    assert [a["earning"] and a["earning"]["points"] for a in answers] == [10, None, 20, None, 40]
    assert [e["code"] for a in answers for e in a["errors"]] == ["MEMBER_UNKNOWN", "RECEIPT_ALREADY_POSTED"]
    assert await world.available() == 70
    assert await world.broken() == []


async def test_a_batch_of_a_thousand_is_posted_and_one_more_is_an_error_that_posts_nothing(world: World) -> None:
    too_many = [world.purchase("1.00") for _ in range(1_001)]
    body = (await world.post("grocer", RECORD_MANY, input=too_many)).json()
    assert "1001" in body["errors"][0]["message"]
    assert await world.transactions() == 0
    answers = (await world.ask("grocer", RECORD_MANY, input=too_many[:1_000]))["recordPurchases"]
    assert sum(a["earning"]["points"] for a in answers) == 1_000
    assert await world.available() == 1_000
    assert await world.broken() == []


async def test_a_purchase_in_a_closed_month_counts_in_the_next_open_one_and_says_so(world: World) -> None:
    operator = await world.operator()
    close = "mutation($m: YearMonth!) { closePeriod(input: {month: $m}) { period { state } errors { code message } } }"
    for month in [f"2026-{n:02d}" for n in range(1, 10)]:
        assert (await world.ask(operator, close, m=month))["closePeriod"]["errors"] == []
    late = (world.clock.now() - timedelta(days=30)).isoformat()
    answer = await world.record("10.00", occurredAt=late)
    assert (answer["earning"]["period"], answer["earning"]["missedPeriod"]) == ("2026-10", "2026-09")
    assert await world.broken() == []


async def test_the_next_open_month_is_the_next_of_the_calendar_also_where_nothing_was_posted(world: World) -> None:
    await world.record("1.00")
    close = "mutation { closePeriod(input: {month: \"2026-01\"}) { errors { code } } }"
    assert (await world.ask(await world.operator(), close))["closePeriod"]["errors"] == []
    answer = await world.record("10.00", occurredAt="2026-01-20T12:00:00Z")
    assert (answer["earning"]["period"], answer["earning"]["missedPeriod"]) == ("2026-02", "2026-01")
    assert await world.broken() == []


async def test_a_purchase_that_waits_for_a_closing_month_goes_to_the_next_one(world: World) -> None:
    """The closing is held open by hand between its lock and its commit."""
    import asyncpg

    await world.record("1.00")
    closing = await asyncpg.connect(world.dsn)
    transaction = closing.transaction()
    await transaction.start()
    await closing.execute("update period set state = 'closing' where month = '2026-10-01'")
    posting = asyncio.create_task(world.record("10.00"))
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    while not posting.done() and (await world.sql(waiting))[0][0] == 0:
        await asyncio.sleep(0.01)
    assert not posting.done()
    await transaction.commit()
    await closing.close()
    answer = await posting
    assert answer["errors"] == []
    assert (answer["earning"]["period"], answer["earning"]["missedPeriod"]) == ("2026-11", "2026-10")


BAD_INPUTS: list[tuple[str, str, dict[str, Any], str]] = [
    ('amount: "1.00"', 'amount: "abc"', {"total": {"amount": "abc", "currency": "USD"}}, ".total.amount"),
    ("2026-10-15T12:00:00Z", "yesterday", {"occurredAt": "yesterday"}, ".occurredAt"),
    ("2026-10-15T12:00:00Z", "2026-10-15T12:00:00+00:60", {"occurredAt": "2026-10-15T12:00:00+00:60"}, ".occurredAt"),
    ('{externalId: "ann"}', '{externalId: "ann", card: "1"}', {"member": {"externalId": "ann", "card": "1"}}, ".member"),
    ('{externalId: "ann"}', "{}", {"member": {}}, ".member"),
    ('receipt: "r", ', 'till: "r", receipt: "r", ', {"till": "r"}, ""),
]
WRITTEN = """{idempotencyKey: "k", receipt: "r", member: {externalId: "ann"}, occurredAt: "2026-10-15T12:00:00Z",
              total: {amount: "1.00", currency: "USD"}}"""


@pytest.mark.parametrize(("good", "bad", "changes", "path"), BAD_INPUTS)
async def test_a_purchase_that_is_written_wrongly_is_refused_with_the_place_of_the_mistake(
    world: World, good: str, bad: str, changes: dict[str, Any], path: str
) -> None:
    document = f"mutation {{ recordPurchases(input: [{WRITTEN},\n{WRITTEN.replace(good, bad)}]) {{ errors {{ code }} }} }}"
    (written,) = (await world.post("grocer", document)).json()["errors"]
    assert written["locations"][0]["line"] >= 3  # the second one stands there
    (sent,) = (await world.post("grocer", RECORD_MANY, input=[world.purchase("1.00"), world.purchase("1.00", **changes)])).json()[
        "errors"
    ]
    assert f"at [1]{path}:" in sent["message"]
    assert "ann" not in written["message"] + sent["message"]
    assert await world.transactions() == 0


async def test_simulating_a_purchase_shows_the_points_and_posts_nothing(world: World) -> None:
    query = "query($input: PurchaseInput!) { simulatePurchase(input: $input) { points explanation { multiplier } } }"
    answer = (await world.ask("fuel", query, input=world.purchase("10.00")))["simulatePurchase"]
    assert answer == {"points": 5, "explanation": [{"multiplier": "1/2"}]}
    for changes, code, path in (
        ({"member": {"externalId": "nobody"}}, "MEMBER_UNKNOWN", ["member"]),
        ({"store": "nowhere"}, "STORE_UNKNOWN", ["store"]),
    ):
        refused = (await world.post("fuel", query, input=world.purchase("10.00", **changes))).json()["errors"]
        assert [(e["extensions"]["code"], e["extensions"]["inputPath"]) for e in refused] == [(code, path)]
    assert await world.transactions() == 0
