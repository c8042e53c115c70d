"""Mistakes that the ledger made once, so that it makes none of them again."""

import asyncio
import json
from datetime import timedelta

from gateway import ids
from gateway.embedded import EmbeddedPostgres
from gateway.ledger.post import SINGLES_OF_ONE
from tests.adjustment.test_adjust import adjust
from tests.conversion.exchanging import convert, fault, quote
from tests.credit.test_credit import set_credit
from tests.ledger.test_batches import locked_wallet, waits
from tests.ledger.test_model import EARN_MANY
from tests.points import bob_joins, capture, codes, hold, release, reverse, run_job, second_operator, terms
from tests.settlement.test_close import close_through
from tests.transfer.test_transfer import give
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


async def test_a_receipt_that_is_posted_is_refused_as_that_also_where_the_credit_would_not_do(world: World) -> None:
    await world.record("5.00", receipt="r")
    await set_credit(world, "1.00")
    again = [await world.record(amount, receipt="r", idempotencyKey=f"again {amount}") for amount in ("50.00", "500.00", "0.50")]
    assert [codes(answer) for answer in again] == [["RECEIPT_ALREADY_POSTED"]] * 3
    assert codes(await world.record("500.00")) == ["CREDIT_LIMIT_REACHED"]
    assert await world.transactions() == 1


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
    world.clock.set(world.clock.now() + timedelta(seconds=1))
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
        # The job leaves a wallet that somebody is at work on to its next run.
        assert (await world.sql(run_out, now, today, today.replace(day=1)))[0][0] == 0
    assert codes(await letting_go) == []
    running_out = await asyncio.gather(*(world.sql(run_out, now, today, today.replace(day=1)) for _ in range(2)))
    assert sorted(rows[0][0] for rows in running_out) == [0, 1]
    told = await world.sql("select kind, transactions from outbox where kind in ('release', 'hold_expired') order by kind")
    assert [(row["kind"], [ids.show("hld", id) for id in row["transactions"]]) for row in told] == [
        ("hold_expired", [expired]),
        ("release", [released]),
    ]
    assert await world.broken() == []


async def test_a_job_leaves_a_wallet_that_is_locked_to_its_next_run_and_does_the_others(world: World) -> None:
    await bob_joins(world)
    await terms(world, pendingDays=1)
    await world.record("10.00")
    await world.record("20.00", member={"externalId": "bob"})
    world.clock.set(world.clock.now() + timedelta(days=2))
    world.tokens.clear()
    async with locked_wallet(world):
        assert await run_job(world, "mature") == 1
    assert await run_job(world, "mature") == 1
    world.clock.set(world.clock.now() + timedelta(days=300))
    world.tokens.clear()
    async with locked_wallet(world):
        assert await run_job(world, "expire") == 20
    assert await run_job(world, "expire") == 10
    assert await world.broken() == []


async def test_points_mature_once_however_many_do_it_at_once(world: World) -> None:
    """The second one waits for the first's lock on the rows themselves, and then finds nothing left to do."""
    await terms(world, pendingDays=1)
    await world.record("10.00")
    at = world.clock.now() + timedelta(days=2)
    mature = "select purchases from post_maturities($1, $2, 500)"
    done = await asyncio.gather(*(world.sql(mature, at, at.date()) for _ in range(6)))
    assert sorted(rows[0][0] for rows in done) == [0, 0, 0, 0, 0, 1]
    assert await world.available() == 10
    assert await world.broken() == []


async def test_what_is_posted_by_itself_waits_for_a_wallet_for_a_moment_and_holds_nobody_else_up(world: World) -> None:
    await bob_joins(world)
    await world.record("50.00")
    spent = (await world.redeem(20))["redemption"]["id"]
    await world.token("fuel")
    document = "mutation($i: ReverseRedemptionInput!) { reverseRedemption(input: $i) { errors { code } } }"
    async with locked_wallet(world):
        stuck = [
            asyncio.create_task(world.post("fuel", document, i={"idempotencyKey": f"v{n}", "redemption": spent, "points": 1}))
            for n in range(8)
        ]
        await waits(world, SINGLES_OF_ONE)
        async with asyncio.timeout(1.5):
            assert codes(await world.record("5.00", member={"externalId": "bob"})) == []
        answers = await asyncio.gather(*stuck)
    assert {(answer.status_code, answer.headers["retry-after"]) for answer in answers} == {(429, "1")}
    assert await world.available() == 30
    again = (await world.ask("fuel", document, i={"idempotencyKey": "v0", "redemption": spent, "points": 1}))["reverseRedemption"]
    assert codes(again) == []
    assert await world.available() == 31
    assert await world.broken() == []


async def test_sums_beyond_what_a_number_of_64_bits_holds_close_a_month_and_fold(world: World) -> None:
    await world.record("5.00")
    await world.sql(
        "insert into delta (delta_id, period, kind, programme_id, account, partner_id, contract_id, points, transactions, amount_minor)"
        " select gen_random_uuid(), period, kind, programme_id, account, partner_id, contract_id, 0, 0, 99999999999999"
        " from delta, generate_series(1, 100000)"
    )
    assert await run_job(world, "fold") == 100_001
    await close_through(world, 10)
    kept = (await world.sql("select amount_minor from statement where period = '2026-10-01' and purchases = 1"))[0]["amount_minor"]
    kept = int(kept)
    assert kept == 100_000 * 99_999_999_999_999 + 500 > 2**63
    said = (await world.ask("grocer", '{ statements(first: 1) { nodes { totals { purchases } } } }'))["statements"]["nodes"]
    assert said[0]["totals"]["purchases"] == 1
    written = json.loads((world.data_dir / "settlement/2026-10/grocer.json").read_text())
    assert written["amount"] == f"{kept // 100}.{kept % 100:02d}"


async def test_a_month_that_something_was_missed_in_is_remembered_whatever_it_was(world: World) -> None:
    """Reversals, conversions, adjustments and returns of a month that closed go to the next, and say so."""
    await world.record("900.00", receipt="r")
    spent = (await world.redeem(20))["redemption"]["id"]
    asked = await adjust(world, 1_500)
    quoted = (await quote(world))["quote"]["id"]
    earlier = world.clock.now()
    await close_through(world, 10)
    await reverse(world, spent, 5, occurredAt=earlier.isoformat())
    await world.give_back("r", total={"amount": "1.00", "currency": "USD"}, occurredAt=earlier.isoformat())
    await world.redeem(1, occurredAt=earlier.isoformat())
    await convert(world, quoted)
    approve = "mutation($i: DecideAdjustmentInput!) { approveAdjustment(input: $i) { adjustment { state } errors { code } } }"
    await world.ask(await second_operator(world), approve, i={"adjustment": asked["adjustment"]["id"]})
    rows = await world.sql("select kind, period::text, missed_period::text as missed from transaction where period > '2026-10-01'")
    assert sorted(tuple(row) for row in rows) == [
        (kind, "2026-11-01", "2026-10-01") for kind in ("adjustment", "conversion", "redemption", "return", "reversal")
    ]
    assert await world.broken() == []


async def test_an_approved_adjustment_lies_in_the_month_in_which_it_was_asked_for_and_lasts_from_the_day_it_was_approved(
    world: World,
) -> None:
    asked = await adjust(world, 1_500)
    world.clock.set(world.clock.now() + timedelta(days=40))
    world.tokens.clear()
    approve = "mutation($i: DecideAdjustmentInput!) { approveAdjustment(input: $i) { adjustment { state } errors { code } } }"
    await world.ask(await second_operator(world), approve, i={"adjustment": asked["adjustment"]["id"]})
    row = (await world.sql("select period::text, missed_period from transaction where kind = 'adjustment'"))[0]
    assert tuple(row) == ("2026-10-01", None)
    assert (await world.sql("select expires_on::text from lot"))[0][0] == "2027-05-31"
    assert await world.broken() == []


async def test_what_the_ledger_refused_one_operator_stays_refused_under_its_key(world: World) -> None:
    key = {"idempotencyKey": "once"}
    assert codes(await adjust(world, -100, **key)) == ["INSUFFICIENT_POINTS"]
    await world.record("500.00")
    assert codes(await adjust(world, -100, **key)) == ["INSUFFICIENT_POINTS"]
    assert await world.available() == 500
    assert codes(await adjust(world, -100)) == []
    assert await world.available() == 400
    assert await world.broken() == []


async def test_a_clock_that_is_ahead_decides_nothing_for_others(world: World) -> None:
    """Bob was posted to by a gateway whose clock is an hour ahead; Ann's hold, captured in one batch with him, is open still."""
    await bob_joins(world)
    await world.record("100.00", member={"externalId": "bob"})
    await world.record("100.00")
    placed = (await hold(world, 50))["hold"]["id"]
    await world.sql("update wallet set last_posted_at = last_posted_at + interval '1 hour'")
    before = world.clock.now()
    assert codes(await capture(world, placed, 20)) == []
    many = "mutation($i: [PurchaseInput!]!) { recordPurchases(input: $i) { errors { code } } }"
    both = [world.purchase("1.00"), world.purchase("1.00", member={"externalId": "bob"})]
    assert (await world.ask("grocer", many, i=both))["recordPurchases"] == [{"errors": []}] * 2
    latest = (await world.sql("select max(posted_at) from transaction"))[0][0]
    assert latest <= before + timedelta(seconds=6)
    assert (await world.sql("select min(last_posted_at) from wallet where available > 0"))[0][0] > before + timedelta(minutes=59)
    assert await world.broken() == []


async def test_what_expires_as_it_is_given_back_comes_after_it(world: World) -> None:
    await world.record("100.00")
    spent = (await world.redeem(100))["redemption"]["id"]
    world.clock.set(world.clock.now() + timedelta(days=260))
    world.tokens.clear()
    for n in range(5):
        assert codes(await reverse(world, spent, 20, idempotencyKey=f"v{n}")) == []
        world.clock.set(world.clock.now() + timedelta(seconds=1))
    rows = await world.sql("select kind from transaction order by posted_at, transaction_id")
    assert [row["kind"] for row in rows] == ["earning", "redemption", *["reversal", "expiry"] * 5]
    assert await world.broken() == []


async def test_a_lot_that_has_had_more_than_can_be_counted_takes_nothing_more(world: World, server: EmbeddedPostgres) -> None:
    """What went through one lot in all is counted, and only ever grows."""
    await bob_joins(world)
    await world.record("5.00")
    assert codes(await give(world, 2)) == []
    assert codes(await adjust(world, 1, partner="fuel")) == []
    for full, days in ((2**62 + 1, 40), (2**63 - 2, 80)):
        await world.sql("update lot set original = $1, returned = $1 - remaining - moved", full)
        begin = server.log_path.stat().st_size
        before, posted = await world.available(), await world.transactions()
        asked = [
            world.purchase("200.00"), world.purchase("0.00"), world.purchase("3.00", member={"externalId": "bob"}),
            world.purchase("4.00", occurredAt=(world.clock.now() - timedelta(days=days)).isoformat()),
        ]  # fmt: skip
        for _ in range(2):
            answers = (await world.ask("grocer", EARN_MANY, i=asked))["recordPurchases"]
            assert [each["earning"] and each["earning"]["points"] for each in answers] == [None, 0, None, 4]
            assert [codes(each) for each in answers] == [["AMOUNT_NOT_ACCEPTED"], [], ["AMOUNT_NOT_ACCEPTED"], []]
        assert codes(await give(world, before + 4)) == ["AMOUNT_NOT_ACCEPTED"]
        assert codes(await adjust(world, 1, partner="fuel")) == ["AMOUNT_NOT_ACCEPTED"]
        assert await world.transactions() == posted + 2
        assert await world.available() == before + 4
        # No sum ran over, which fails a whole batch.
        assert b"out of range" not in server.log_path.read_bytes()[begin:]
