"""What an attack on the ledger found once, so that it is never found again."""

import asyncio
from datetime import timedelta

from gateway import ids
from tests.adjustment.test_adjust import adjust
from tests.conversion.test_convert import convert, fault, quote
from tests.credit.test_credit import set_credit
from tests.ledger.test_batches import locked_wallet, waits
from tests.points import bob_joins, capture, codes, hold, release, reverse, run_job, second_operator, terms
from tests.wallets.test_history import AS_OF, mer
from tests.world import World


async def test_a_backdated_reversal_after_expiry_leaves_nothing_stuck(world: World) -> None:
    await world.record("100.00", occurredAt=(world.clock.now() - timedelta(days=190)).isoformat())
    spent = (await world.redeem(100))["redemption"]["id"]
    when = world.clock.now()
    world.clock.set(world.clock.now() + timedelta(days=20))
    world.tokens.clear()
    await run_job(world, "expire")
    await reverse(world, spent, 40, occurredAt=when.isoformat())
    assert await world.available() == 0
    assert await world.broken() == []


async def test_the_hold_of_an_order_is_nobodys_to_capture_or_release(world: World) -> None:
    await world.record("500.00")
    quoted = (await quote(world))["quote"]["id"]
    await fault(world, "lose_answer")
    assert codes(await convert(world, quoted, "k")) == ["STATE_CONFLICT"]
    order = ids.show("hld", (await world.sql("select hold_id from hold"))[0][0])
    assert codes(await capture(world, order, 5, who="airline")) == ["HOLD_UNKNOWN"]
    assert codes(await release(world, order, who="airline")) == ["HOLD_UNKNOWN"]
    assert (await world.wallet())["held"] == 200
    assert await world.broken() == []


async def test_one_key_posts_one_movement_however_many_members_it_names(world: World) -> None:
    enrol = "mutation($i: [EnrolMemberInput!]!) { enrolMembers(input: $i) { errors { code } } }"
    await world.ask("grocer", enrol, i=[{"externalId": f"m{n}"} for n in range(6)])
    many = "mutation($i: [RedeemPointsInput!]!) { redeemPointsBatch(input: $i) { errors { code } } }"
    for n in range(6):
        await world.record("10.00", member={"externalId": f"m{n}"})
    same = [{"idempotencyKey": "same", "member": {"externalId": f"m{n}"}, "programme": "MER", "points": 1} for n in range(6)]
    answers = (await world.ask("grocer", many, i=same))["redeemPointsBatch"]
    assert [codes(a) for a in answers] == [[], *[["IDEMPOTENCY_KEY_REUSED"]] * 5]
    await world.record("300.00")
    await world.redeem(10, who="airline", idempotencyKey="k")
    assert codes(await convert(world, (await quote(world))["quote"]["id"], "k")) == ["IDEMPOTENCY_KEY_REUSED"]
    assert (await world.wallet())["held"] == 0


async def test_one_key_adjusts_one_member_also_when_two_are_asked_for_at_once(world: World) -> None:
    await bob_joins(world)
    found = await world.ask(await world.operator(), '{ memberByCard(card: "CARD-2") { id } }')
    bob = found["memberByCard"]["id"]
    answers = await asyncio.gather(adjust(world, 5, idempotencyKey="k"), adjust(world, 5, idempotencyKey="k", member=bob))
    assert sorted(len(codes(a)) for a in answers) == [0, 1]
    assert await world.transactions() == 1


async def test_returning_what_was_bought_before_the_limit_frees_no_credit(world: World) -> None:
    await world.record("300.00", receipt="before")
    await set_credit(world, "2.00")
    await world.give_back("before")
    accepted = [codes(await world.record("100.00")) == [] for _ in range(6)]
    assert sum(accepted) == 2
    assert await world.available() == 200


async def test_a_hold_from_before_the_daily_limit_gives_nothing_back_to_it(world: World) -> None:
    await world.record("200.00")
    placed = (await hold(world, 40))["hold"]["id"]
    await terms(world, spendMostADay=50)
    await world.redeem(50)
    await release(world, placed)
    assert codes(await world.redeem(1)) == ["DAILY_LIMIT_REACHED"]


async def test_a_till_cannot_spend_other_days_limits_by_backdating(world: World) -> None:
    await world.record("500.00")
    await terms(world, spendMostADay=50)
    moments = [(world.clock.now() - timedelta(days=days)).isoformat() for days in range(4)]
    answers = [codes(await world.redeem(50, occurredAt=at)) for at in moments]
    assert answers == [[], *[["DAILY_LIMIT_REACHED"]] * 3]


async def test_all_that_is_left_is_decided_under_the_lock(world: World) -> None:
    await world.record("100.00")
    redeemed = (await world.redeem(60))["redemption"]["id"]
    part, rest = await asyncio.gather(reverse(world, redeemed, 10), reverse(world, redeemed))
    assert rest["errors"] == []
    assert (part["errors"], rest["reversal"]["points"]) in (([], 50), ([], 60)) or codes(part) == ["REVERSAL_EXCEEDS_REDEMPTION"]
    assert await world.available() == 100
    placed = (await hold(world, 100))["hold"]["id"]
    _part, all_ = await asyncio.gather(capture(world, placed, 10), capture(world, placed))
    assert all_["errors"] == []
    assert (await world.wallet())["held"] == 0
    assert await world.broken() == []


async def test_a_wallet_never_holds_more_than_a_json_reader_can_count(world: World) -> None:
    otto = await second_operator(world)
    approve = "mutation($i: DecideAdjustmentInput!) { approveAdjustment(input: $i) { errors { code message } } }"
    first = (await adjust(world, 2**53 - 1))["adjustment"]["id"]
    assert codes((await world.ask(otto, approve, i={"adjustment": first}))["approveAdjustment"]) == []
    second = (await adjust(world, 2000))["adjustment"]["id"]
    assert codes((await world.ask(otto, approve, i={"adjustment": second}))["approveAdjustment"]) == ["AMOUNT_NOT_ACCEPTED"]
    assert codes(await world.record("1.00")) == ["AMOUNT_NOT_ACCEPTED"]
    assert await world.available() == 2**53 - 1
    assert await world.broken() == []


async def test_a_members_past_knows_of_debts_that_a_released_hold_repaid(world: World) -> None:
    await world.record("10.00", receipt="r")
    held = (await hold(world, 10))["hold"]["id"]
    await world.give_back("r")
    await release(world, held)
    wallet = await world.wallet()
    then = (await mer(world, AS_OF, at=world.clock.now().isoformat()))["asOf"]
    assert {name: then[name] for name in ("available", "held", "owed")} == {"available": 0, "held": 0, "owed": 0}
    assert (wallet["available"], wallet["held"], wallet["owed"]) == (0, 0, 0)
    assert await world.broken() == []


async def test_a_hold_that_is_released_as_its_time_ends_is_told_of_once_and_as_what_it_was(world: World) -> None:
    await world.record("100.00")
    released, expired = (await hold(world, 10))["hold"]["id"], (await hold(world, 10))["hold"]["id"]
    world.clock.set(world.clock.now() + timedelta(hours=1))
    world.tokens.clear()
    await world.token("fuel")
    now, today = world.clock.now(), world.clock.now().date()
    run_out = "select post_run_out_holds($1, $2, $3, 500)"
    async with locked_wallet(world):
        letting_go = asyncio.create_task(release(world, released))
        await waits(world, 1)
        running_out = [asyncio.create_task(world.sql(run_out, now, today, today.replace(day=1))) for _ in range(2)]
        await waits(world, 3)
    assert codes(await letting_go) == []
    assert sorted([(await each)[0][0] for each in running_out]) == [0, 1]
    told = await world.sql("select kind, transactions from outbox where kind in ('release', 'hold_expired') order by kind")
    assert [(row["kind"], [ids.show("hld", id) for id in row["transactions"]]) for row in told] == [
        ("hold_expired", [expired]),
        ("release", [released]),
    ]
    assert await world.broken() == []
