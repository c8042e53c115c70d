"""Lanes and lines: who waits together, who takes turns, and how many may wait."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import NamedTuple
from uuid import UUID, uuid4

import pytest

from gateway import turns
from gateway.batching import ASIDE_MAX, Lanes
from gateway.database import Database
from gateway.ledger.items import Key
from gateway.ledger.post import Ledger
from gateway.parties import PARTY, STRANGERS
from gateway.turns import Busy, Claims, OneAtATime
from tests.world import World


class Wanted(NamedTuple):
    """An item of a lane: which wallet it is of, and who wants it."""

    wallet: str
    who: str
    number: int


def in_turns(posted: list[list[int]]) -> Lanes[Wanted, int]:
    """A lane whose batches take from each wallet once."""

    async def post(items: Sequence[Wanted]) -> list[int]:
        posted.append([item.number for item in items])
        await asyncio.sleep(0)
        return posted[-1]

    return Lanes(post, bucket=lambda i: 0, count=1, who=lambda i: i.who, wallet=lambda i: i.wallet, alone=True)


async def test_items_of_one_wallet_never_share_a_batch_and_keep_their_order() -> None:
    posted: list[list[int]] = []
    items = [Wanted(wallet, "grocer", n) for n, wallet in enumerate("abacab")]
    assert await in_turns(posted).submit(items) == [0, 1, 2, 3, 4, 5]
    assert posted == [[0, 1, 3], [2, 5], [4]]


async def test_who_wants_a_thousand_of_one_wallet_holds_up_nobody_who_wants_it_too() -> None:
    posted: list[list[int]] = []
    lanes = in_turns(posted)
    many = asyncio.create_task(lanes.submit([Wanted("a", "grocer", n) for n in range(1_000)]))
    await asyncio.sleep(0)
    ours = [Wanted("a", "fuel", 1_000), Wanted("a", "fuel", 1_001), Wanted("b", "fuel", 1_002)]
    assert await lanes.submit(ours) == [1_000, 1_001, 1_002]
    assert len(posted) <= 6
    assert await many == list(range(1_000))
    assert [n for batch in posted for n in batch if n < 1_000] == list(range(1_000))
    assert lanes.waiting == 0


async def test_one_partys_thousands_leave_room_in_the_queue_and_in_every_batch_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    posted: list[list[Wanted]] = []

    async def post(items: Sequence[Wanted]) -> list[int]:
        posted.append(list(items))
        await asyncio.sleep(0)
        return [item.number for item in items]

    lanes = Lanes[Wanted, int](post, bucket=lambda i: 0, count=1, who=lambda i: i.who)
    many = asyncio.create_task(lanes.submit([Wanted("a", "grocer", n) for n in range(10_000)]))
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await lanes.submit([Wanted("a", "grocer", 10_000)])
    ours = [Wanted("a", who, n) for who in ("fuel", "airline") for n in range(300)]
    assert await lanes.submit(ours) == [*range(300), *range(300)]
    assert len(posted) <= 3
    assert await many == list(range(10_000))
    assert [item.number for batch in posted for item in batch if item.who == "grocer"] == list(range(10_000))
    assert max(map(len, posted)) == 1_000
    assert await lanes.submit([Wanted("a", "grocer", 10_000)]) == [10_000]


async def test_taking_a_batch_costs_what_it_takes_however_much_waits() -> None:
    looked_at: Counter[str] = Counter()

    def wallet(item: int) -> str:
        looked_at["wallet"] += 1
        return "a"

    async def post(items: Sequence[int]) -> list[int]:
        return list(items)

    lanes = Lanes[int, int](post, bucket=lambda i: 0, count=1, wallet=wallet, who=lambda i: "grocer", alone=True)
    assert len(await lanes.submit(range(2_000))) == 2_000
    assert looked_at["wallet"] <= 2 * 2_000


async def test_one_bad_item_fails_alone_and_a_caller_who_left_leaves_its_item_posted() -> None:
    posted: list[int] = []
    go = asyncio.Event()

    async def post(items: list[int]) -> list[int]:
        await go.wait()
        if -1 in items:
            raise ValueError("bad item")
        posted.extend(items)
        return items

    lanes = Lanes[int, int](post, bucket=lambda i: 0, who=lambda i: 0, count=1)
    first = asyncio.create_task(lanes.submit([0]))
    await asyncio.sleep(0)
    bad, good, gone = (asyncio.create_task(lanes.submit([n])) for n in (-1, 2, 3))
    await asyncio.sleep(0)
    gone.cancel()
    go.set()
    results = await asyncio.gather(first, bad, good, gone, return_exceptions=True)
    assert results[0] == [0]
    assert isinstance(results[1], ValueError)
    assert results[2] == [2]
    assert isinstance(results[3], asyncio.CancelledError)
    await lanes.drain()
    assert posted == [0, 2, 3]


async def test_whose_item_fails_is_found_apart_from_the_others_and_by_halves() -> None:
    posted: list[list[int]] = []

    async def post(items: Sequence[Wanted]) -> list[int]:
        numbers = [item.number for item in items]
        posted.append(numbers)
        await asyncio.sleep(0)
        if 70 in numbers:
            raise ValueError
        return numbers

    lanes = Lanes(post, bucket=lambda i: 0, count=1, who=lambda i: i.who)
    first = asyncio.create_task(lanes.submit([Wanted("w", "first", -1)]))  # while it is posted the others wait together
    await asyncio.sleep(0)
    others = asyncio.create_task(lanes.submit([Wanted("w", "others", n) for n in range(200, 264)]))
    own = [asyncio.create_task(lanes.submit([Wanted("w", "one", n)])) for n in range(64, 128)]
    assert await first == [-1]
    assert await others == list(range(200, 264))
    results = await asyncio.gather(*own, return_exceptions=True)
    assert [n for n, result in enumerate(results, 64) if isinstance(result, ValueError)] == [70]
    assert [result for result in results if not isinstance(result, ValueError)] == [[n] for n in range(64, 128) if n != 70]
    assert sum(any(n >= 200 for n in each) for each in posted) == 2  # with the one that failed, and without
    assert len(posted) <= 1 + 1 + 1 + 1 + 2 * 6 + 1


async def test_who_sends_nothing_but_what_fails_holds_up_nobody_else() -> None:
    posted: list[list[int]] = []

    async def post(items: Sequence[Wanted]) -> list[int]:
        posted.append([item.number for item in items])
        await asyncio.sleep(0)
        if any(item.who == "bad" for item in items):
            raise ValueError
        return [item.number for item in items]

    lanes = Lanes(post, bucket=lambda i: 0, count=1, who=lambda i: i.who)
    bad = asyncio.create_task(lanes.submit([Wanted("w", "bad", n) for n in range(1_000)]))
    await asyncio.sleep(0)
    for n in range(10):
        begin = len(posted)
        assert await lanes.submit([Wanted("w", "good", n)]) == [n]
        assert len(posted) - begin < 10  # and not a thousand
    assert not bad.done()
    with pytest.raises(ValueError):
        await bad
    await lanes.drain()
    assert lanes.waiting == 0


async def test_a_queue_that_is_full_says_busy_and_takes_nothing() -> None:
    never = asyncio.Event()

    async def post(items: list[int]) -> list[int]:
        await never.wait()
        return items

    lanes = Lanes[int, int](post, bucket=lambda i: 0, who=lambda i: i % 2, count=1)
    waiting = asyncio.create_task(lanes.submit(list(range(20_000))))
    await asyncio.sleep(0)
    try:
        await lanes.submit(list(range(20_001)))
    except Busy:
        pass
    else:
        raise AssertionError("expected Busy")
    never.set()
    assert len(await waiting) == 20_000


@pytest.mark.parametrize("limit", ["CLAIMANTS_MAX", "CLAIMANTS_MAX_OF_ONE"])
async def test_so_many_wait_their_turn_and_no_more(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(turns, limit, 2)
    one_at_a_time, let_go = OneAtATime(), asyncio.Event()
    done: list[int] = []

    async def take(n: int) -> None:
        async with one_at_a_time("receipt"):
            await let_go.wait()
            done.append(n)

    taking = [asyncio.create_task(take(n)) for n in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await take(3)
    async with one_at_a_time("another"):
        pass
    let_go.set()
    await asyncio.gather(*taking)
    assert done == [0, 1, 2]


async def test_what_is_stuck_is_bounded_and_counted_as_waiting() -> None:
    class Held(Exception):
        pass

    let_go = asyncio.Event()

    async def post(items: Sequence[int]) -> list[int]:
        if len(items) > 1:
            raise Held
        await let_go.wait()
        return list(items)

    lanes = Lanes[int, int](post, bucket=lambda i: 0, who=lambda i: 0, count=1, stuck=Held)
    calls = [asyncio.create_task(lanes.submit(list(range(1_000)))) for _ in range(4)]
    for refused in calls[2:]:
        with pytest.raises(Busy):
            await refused
    assert lanes.waiting == ASIDE_MAX
    assert not any(call.done() for call in calls[:2])
    let_go.set()
    assert [len(each) for each in await asyncio.gather(*calls[:2])] == [1_000, 1_000]
    await lanes.drain()
    assert lanes.waiting == 0


@pytest.mark.parametrize("limit", ["CLAIMANTS_MAX", "CLAIMANTS_MAX_OF_ONE"])
async def test_so_many_wait_for_one_key_and_no_more(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(turns, limit, 2)
    claims = Claims()
    await claims.claim(["k"])
    waiting = [asyncio.create_task(claims.claim(["k", n])) for n in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await claims.claim(["k"])
    await claims.claim(["other"])
    claims.free(["k"])
    await waiting[0]
    claims.free(["k", 0])
    await waiting[1]
    claims.free(["k", 1])
    await claims.claim(["k"])


async def test_what_one_party_posts_by_itself_leaves_others_their_turn(world: World) -> None:
    ledger, let_go = Ledger(Database(world.dsn, 2), world.clock, 4), asyncio.Event()
    done: list[str] = []

    async def post(who: str, after: asyncio.Event | None = None) -> None:
        PARTY.set(UUID(bytes=who.encode() * 16))

        async def posting() -> None:
            if after is not None:
                await after.wait()
            done.append(who)

        await ledger.once(Key(uuid4(), "k", b""), posting)

    flood = [asyncio.create_task(post("a", let_go)) for _ in range(200)]
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await asyncio.create_task(post("b"))
    assert done == ["b"]
    let_go.set()
    await asyncio.gather(*flood)
    assert done[1:] == ["a"] * 200


async def test_one_partys_waiting_for_its_key_leaves_others_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "CLAIMANTS_MAX_OF_ONE", 3)
    claims = Claims()
    await claims.claim(["a", "b"])

    async def want(party: UUID, name: str) -> None:
        PARTY.set(party)
        await claims.claim([name])

    one, other = uuid4(), uuid4()
    crowd = [asyncio.create_task(want(one, "a")) for _ in range(5)]
    others = asyncio.create_task(want(other, "b"))
    await asyncio.sleep(0)
    assert [task.done() for task in crowd] == [False] * 3 + [True] * 2
    for refused in crowd[3:]:
        with pytest.raises(Busy):
            await refused
    claims.free(["a", "b"])
    await others
    assert [task.done() for task in crowd[:3]] == [True, False, False]  # one after the other
    claims.free(["a"])
    await crowd[1]


async def test_whoever_comes_and_goes_every_claim_is_met_and_none_at_once_with_another() -> None:
    """Names taken together in any order, by many, of whom some go away while they wait or just when it is their turn."""
    random, claims, held, met = Random(7), Claims(), Counter[str](), 0  # noqa: S311

    async def want() -> None:
        nonlocal met
        names = random.sample("abcde", random.randint(1, 3))
        await claims.claim(names)
        held.update(names)
        assert max(held.values()) == 1
        try:
            await asyncio.sleep(0)
        finally:
            held.subtract(names)
            claims.free(names)
        met += 1

    wanting = [asyncio.create_task(want()) for _ in range(600)]
    gone = 0
    for task in random.sample(wanting, 200):
        await asyncio.sleep(0)
        gone += task.cancel()
    async with asyncio.timeout(10):
        ended = await asyncio.gather(*wanting, return_exceptions=True)
    assert sum(isinstance(each, asyncio.CancelledError) for each in ended) == 600 - met <= gone
    assert not any(isinstance(each, AssertionError) for each in ended)
    assert met >= 400
    assert (claims._taken, claims._lines, claims._waiting._all, dict(claims._waiting._of)) == (set(), {}, 0, {})


async def test_a_turn_that_one_does_not_take_is_the_next_ones() -> None:
    claims = Claims()
    await claims.claim(["x"])
    await claims.claim(["y"])
    goes, waits_on = (asyncio.create_task(claims.claim(names)) for names in (["x"], ["x", "y"]))
    last = asyncio.create_task(claims.claim(["x"]))
    await asyncio.sleep(0)
    claims.free(["x"])
    goes.cancel()  # its turn has come, and it does not know yet
    async with asyncio.timeout(5):
        await last  # past the one that still waits for y
    assert (goes.cancelled(), waits_on.done()) == (True, False)
    claims.free(["x"])
    claims.free(["y"])
    async with asyncio.timeout(5):
        await waits_on


async def test_strangers_that_wait_for_one_name_keep_no_stranger_from_waiting_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "CLAIMANTS_MAX_OF_ONE", 3)
    one_at_a_time, let_go = OneAtATime(), asyncio.Event()

    async def knock(name: str) -> None:
        PARTY.set(STRANGERS)
        async with one_at_a_time(name):
            await let_go.wait()

    crowd = [asyncio.create_task(knock("made up")) for _ in range(6)]
    tabs = [asyncio.create_task(knock("refresh token")) for _ in range(3)]
    await asyncio.sleep(0)
    let_go.set()
    ended = await asyncio.gather(*crowd, return_exceptions=True)
    assert [type(each) for each in ended] == [type(None)] * 4 + [Busy] * 2
    await asyncio.gather(*tabs)
