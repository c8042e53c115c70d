"""A partner's credit and a programme's limits: enforced to the cent and the point, by many at once."""

import asyncio
from typing import Any

from gateway.credit.credit import plain_reference
from tests.points import codes, hold, run_job, second_operator, terms
from tests.world import World

CREDIT = """
mutation($i: SetPartnerCreditInput!) { setPartnerCredit(input: $i) {
  credit { limit { amount } used { amount } warning } errors { code message } } }
"""
PAY = """
mutation($i: RecordPartnerPaymentInput!) { recordPartnerPayment(input: $i) {
  credit { limit { amount } used { amount } warning } errors { code message } } }
"""


def usd(amount: str) -> dict[str, str]:
    return {"amount": amount, "currency": "USD"}


async def set_credit(world: World, limit: str, **changes: Any) -> dict[str, Any]:
    partner = (await world.ask("grocer", "{ partner { id } }"))["partner"]["id"]
    given = {"partner": partner, "limit": usd(limit), **changes}
    return (await world.ask(await world.operator(), CREDIT, i=given))["setPartnerCredit"]


async def pay(world: World, amount: str, key: str, by: str | None = None, **changes: Any) -> dict[str, Any]:
    partner = (await world.ask("grocer", "{ partner { id } }"))["partner"]["id"]
    given = {"partner": partner, "amount": usd(amount), "idempotencyKey": key, **changes}
    return (await world.ask(by or await world.operator(), PAY, i=given))["recordPartnerPayment"]


async def used(world: World) -> dict[str, Any]:
    return (await world.ask("grocer", "{ partnerCredit { used { amount } warning } }"))["partnerCredit"]


async def test_credit_is_used_by_issuing_freed_by_returns_and_payments_and_ends_at_the_limit(world: World) -> None:
    await set_credit(world, "2.00")  # 200 points at 0.01
    await world.record("150.00", receipt="r")
    assert await used(world) == {"used": {"amount": "1.50"}, "warning": False}
    assert codes(await world.record("51.00")) == ["CREDIT_LIMIT_REACHED"]
    assert await world.available() == 150
    await world.record("50.00")
    assert await used(world) == {"used": {"amount": "2.00"}, "warning": True}
    assert codes(await world.record("1.00")) == ["CREDIT_LIMIT_REACHED"]
    await world.give_back("r", total=usd("20.00"))
    assert (await world.record("20.00"))["errors"] == []
    assert (await pay(world, "1.00", "p"))["credit"]["used"]["amount"] == "1.00"
    assert (await pay(world, "1.00", "p"))["credit"]["used"]["amount"] == "1.00"
    assert codes(await pay(world, "1.01", "p")) == ["IDEMPOTENCY_KEY_REUSED"]
    assert (await world.record("100.00"))["errors"] == []
    assert codes(await world.record("1.00")) == ["CREDIT_LIMIT_REACHED"]
    assert (await world.record("100.00", who="fuel"))["errors"] == []
    assert await world.broken() == []


async def test_a_programme_refuses_returns_of_spent_points_from_then_on_if_its_terms_say_so(world: World) -> None:
    await world.record("100.00", receipt="r")
    await world.redeem(70)
    await terms(world, refundPolicy="WITHIN_BALANCE")
    await terms(world)  # and as it was if not given
    refused = await world.give_back("r")
    assert [(e["code"], e["message"]) for e in refused["errors"]] == [
        ("INSUFFICIENT_POINTS", "The member has fewer available points than 100.")
    ]
    assert await world.available() == 30
    await terms(world, refundPolicy="ALLOW_DEBT")
    assert codes(await world.give_back("r", idempotencyKey="later")) == []
    assert (await world.wallet())["owed"] == 70


async def test_who_prepays_is_warned_by_what_it_paid_last_and_once(world: World) -> None:
    await set_credit(world, "0.00")
    assert await run_job(world, "credit") == 1  # nothing was paid yet
    await pay(world, "2.00", "p")
    assert ((await used(world))["warning"], await run_job(world, "credit")) == (False, 0)
    await world.record("150.00")
    assert ((await used(world))["warning"], await run_job(world, "credit")) == (False, 0)
    await world.record("10.00")  # a fifth is left
    assert ((await used(world))["warning"], await run_job(world, "credit"), await run_job(world, "credit")) == (True, 1, 0)
    await pay(world, "2.00", "q")
    assert ((await used(world))["warning"], await run_job(world, "credit")) == (False, 0)
    await world.record("200.00")
    assert await run_job(world, "credit") == 1


async def test_without_credit_a_partner_issues_only_what_it_has_prepaid(world: World) -> None:
    await set_credit(world, "0.00")
    assert codes(await world.record("1.00")) == ["CREDIT_LIMIT_REACHED"]
    assert (await world.record("0.50"))["errors"] == []  # no points, so nothing to pay for
    await pay(world, "0.30", "p")
    assert (await world.record("30.00"))["errors"] == []
    assert codes(await world.record("1.00")) == ["CREDIT_LIMIT_REACHED"]
    assert await world.available() == 30


async def test_a_hundred_at_once_use_the_credit_to_the_last_point_and_no_further(world: World) -> None:
    await set_credit(world, "1.00")
    enrol = "mutation($i: [EnrolMemberInput!]!) { enrolMembers(input: $i) { errors { code } } }"
    await world.ask("grocer", enrol, i=[{"externalId": f"m{n}"} for n in range(50)])
    answers = await asyncio.gather(*(world.record("3.00", member={"externalId": f"m{n % 50}"}) for n in range(100)))
    assert sum(answer["errors"] == [] for answer in answers) == 33
    assert {c for a in answers for c in codes(a)} == {"CREDIT_LIMIT_REACHED"}
    assert (await used(world))["used"]["amount"] == "0.99"
    assert await world.broken() == []


async def test_a_batch_is_taken_in_order_as_far_as_the_credit_goes(world: World) -> None:
    await set_credit(world, "0.50")
    many = "mutation($i: [PurchaseInput!]!) { recordPurchases(input: $i) { earning { points } errors { code } } }"
    inputs = [world.purchase(amount) for amount in ("30.00", "30.00", "15.00", "10.00")]
    answers = (await world.ask("grocer", many, i=inputs))["recordPurchases"]
    assert [codes(a) for a in answers] == [[], ["CREDIT_LIMIT_REACHED"], [], ["CREDIT_LIMIT_REACHED"]]
    again = (await world.ask("grocer", many, i=inputs))["recordPurchases"]
    assert again == answers
    assert await world.broken() == []


async def test_a_members_spending_ends_at_the_limits_of_the_programme(world: World) -> None:
    await world.record("500.00")
    await terms(world, spendMost=100, spendMostADay=150)
    assert codes(await world.redeem(101)) == ["TRANSACTION_LIMIT_EXCEEDED"]
    assert (await world.redeem(100))["errors"] == []
    assert codes(await world.redeem(51)) == ["DAILY_LIMIT_REACHED"]
    assert codes(await hold(world, 51)) == ["DAILY_LIMIT_REACHED"]
    assert (await hold(world, 50))["errors"] == []
    assert codes(await world.redeem(1)) == ["DAILY_LIMIT_REACHED"]
    assert [(w := await world.wallet())["available"], w["held"]] == [350, 50]


async def test_the_next_day_has_its_own_limit_and_a_released_hold_gives_its_share_back(world: World) -> None:
    from datetime import timedelta

    from tests.points import release

    await world.record("500.00")
    await terms(world, spendMostADay=100)
    placed = (await hold(world, 100))["hold"]
    assert codes(await world.redeem(1)) == ["DAILY_LIMIT_REACHED"]
    await release(world, placed["id"])
    assert (await world.redeem(60))["errors"] == []
    assert codes(await world.redeem(41)) == ["DAILY_LIMIT_REACHED"]
    world.clock.set(world.clock.now() + timedelta(days=1))
    world.tokens.clear()
    assert (await world.redeem(100))["errors"] == []
    assert await world.broken() == []


async def test_twenty_redemptions_at_once_stay_within_the_daily_limit(world: World) -> None:
    await world.record("500.00")
    await terms(world, spendMostADay=100)
    answers = await asyncio.gather(*(world.redeem(30) for _ in range(20)))
    assert sum(answer["errors"] == [] for answer in answers) == 3
    assert await world.available() == 410


async def test_a_payment_is_noted_once_under_the_banks_reference_whoever_notes_it(world: World) -> None:
    await set_credit(world, "2.00")
    await world.record("150.00")
    otto, olga = await second_operator(world), await world.operator()
    both = await asyncio.gather(
        *(pay(world, "1.00", "same key", by=by, reference="BANK-77") for by in (otto, olga)), pay(world, "1.00", "x", reference="BANK-77")
    )
    assert sorted(map(codes, both)) == [[], ["STATE_CONFLICT"], ["STATE_CONFLICT"]]
    assert next(each for each in both if each["errors"])["errors"][0]["message"].count("BANK-77") == 1
    assert (await used(world))["used"]["amount"] == "0.50"
    assert codes(await pay(world, "1.00", "y", reference="BANK-78")) == codes(await pay(world, "1.00", "z")) == []
    assert (await world.sql("select count(*) from credit_payment"))[0][0] == 3
    assert await world.broken() == []


async def test_a_banks_reference_is_one_however_it_is_copied(world: World) -> None:
    await set_credit(world, "2.00")
    assert codes(await pay(world, "1.00", "a", reference="RF18  5390 Bank-77")) == []
    for n, copied in enumerate((" rf18 5390 bank-77", "RF185390BANK-77", "\uff32F18\u00a05390 Bank\u201377 ")):
        told = await pay(world, "1.00", f"b{n}", reference=copied)
        assert codes(told) == ["STATE_CONFLICT"]
        assert "'RF18 5390 Bank-77' is noted already, on 2026-10-15" in told["errors"][0]["message"]
    assert codes(await pay(world, "1.00", "a", reference="rf185390 bank-77")) == []
    assert codes(await pay(world, "1.00", "a", reference="RF18 5390 Bank-78")) == ["IDEMPOTENCY_KEY_REUSED"]
    assert [tuple(row) for row in await world.sql("select amount_minor, reference from credit_payment")] == [(100, "RF18 5390 Bank-77")]


async def test_references_that_differ_in_more_than_how_they_are_copied_are_two(world: World) -> None:
    await set_credit(world, "2.00")
    several = ["--", "//", "\u0661\u0662\u0663", "\u0664\u0665\u0666", "\u20ac", "2026-1-11", "2026-11-1", "2026111", "INV-\u0967", "INV-\u0968", "\u0915\u093f 1", "\u0915\u093e 1"]
    for n, reference in enumerate(several):
        assert codes(await pay(world, "0.01", f"k{n}", reference=reference)) == []
    assert len({plain_reference(each) for each in several}) == len(several)
    for one, other in (("STRASSE 1", "straße 1"), ("Σ9", "ς9")):
        assert plain_reference(one) == plain_reference(other)
    assert (await world.sql("select count(*) from credit_payment"))[0][0] == len(several)
