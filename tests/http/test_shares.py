"""What one caller may have of the gateway at once, and how little the others notice of it."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from gateway.access import audit
from gateway.access.caller import Caller
from gateway.coalition.catalogue import Catalogue
from gateway.database import Database, Stuck, pools
from gateway.events import feed
from gateway.http import endpoint, shares
from gateway.http.cost import COST_MAX
from gateway.parties import PARTY
from gateway.privacy import graph as people_graph
from gateway.settings import read_settings
from gateway.wallets import history
from tests.access.consenting import agree, exchange
from tests.events.following import next_of, open_socket
from tests.ledger.test_batches import locked_wallet, waits
from tests.points import ann_hands_over, ann_logs_in, bob_joins, mint, run_job
from tests.world import World

PAGES = "query($r: [MemberRef!]!) { membershipsByRef(refs: $r) { %s } }"


async def test_one_request_takes_its_turn_at_the_database_however_many_fields_it_looks_up(world: World) -> None:
    pages = " ".join(f"p{n}: activity(first: 1) {{ nodes {{ __typename }} }}" for n in range(3))
    refs = [{"externalId": "ann"}] * 1_000

    async def crowd() -> list[int]:
        return [answer.status_code for answer in await asyncio.gather(*(world.post("grocer", PAGES % pages, r=refs) for _ in range(3)))]

    crowded = asyncio.create_task(crowd())
    longest, answers = 0.0, []
    while not crowded.done():
        began = time.monotonic()
        answers.append((await world.post("fuel", "{ membership(ref: {externalId: \"ann\"}) { wallets { available } } }")).status_code)
        longest = max(longest, time.monotonic() - began)
    assert set(await crowded) == {200}
    assert set(answers) == {200}
    assert longest < 5
    more = " ".join(f"p{n}: activity(first: 1) {{ nodes {{ __typename }} }}" for n in range(12))
    refused = (await world.post("grocer", PAGES % more, r=refs)).json()
    assert refused["errors"][0]["extensions"]["code"] == "COST_TOO_HIGH"


async def test_a_partner_that_acts_takes_its_turn_too(world: World) -> None:
    await agree(world, "profile:read", data_classes=("contact",))
    acting = (await exchange(world, await ann_hands_over(world, "profile:read"))).json()["access_token"]
    mine = (await world.ask(acting, "{ me { memberships { id partner { code } } } }"))["me"]["memberships"]
    id = next(each["id"] for each in mine if each["partner"]["code"] == "fuel")
    people = " ".join(f"p{n}: person {{ name }}" for n in range(12))
    query = f"query($r: [_Any!]!) {{ _entities(representations: $r) {{ ... on Membership {{ id {people} }} }} }}"
    asked = {"query": query, "variables": {"r": [{"__typename": "Membership", "id": id}] * 300}}

    async def large() -> int:
        """Who asks for so much waits for as long as it takes."""
        bearer = {"Authorization": f"Bearer {acting}"}
        return (await world.http.post("/graphql", json=asked, headers=bearer, timeout=120)).status_code

    async def crowd() -> list[int]:
        return await asyncio.gather(*(large() for _ in range(3)))

    crowded = asyncio.create_task(crowd())
    longest, answers = 0.0, []
    while not crowded.done():
        began = time.monotonic()
        answers.append((await world.post("grocer", "{ membership(ref: {externalId: \"ann\"}) { wallets { available } } }")).status_code)
        longest = max(longest, time.monotonic() - began)
    assert set(await crowded) == set(answers) == {200}
    assert longest < 3


LARGE_QUERY = "{ memberships(first: 10) { nodes { id externalId } } }"
LARGE_MUTATION = """mutation { enrolMembers(input: [{externalId: "a"}, {externalId: "b"}, {externalId: "c"}, {externalId: "d"}])
  { membership { id } errors { code } } }"""


@pytest.mark.parametrize(
    ("sizes", "asked"),
    [
        ("QUERIES_AT_ONCE", LARGE_QUERY),
        ("MUTATIONS_AT_ONCE", LARGE_MUTATION),
    ],
)
async def test_of_one_callers_operations_a_few_run_at_once_and_small_ones_go_past_large_ones(
    world: World, monkeypatch: pytest.MonkeyPatch, sizes: str, asked: str
) -> None:
    monkeypatch.setattr(shares, sizes, ((10, 12), (1_000, 3)))
    held = {who: Held(3) for who in ("grocer", "fuel")}
    run = endpoint.GraphQLEndpoint._execute
    partners = {row["partner_id"]: row["code"] for row in await world.sql("select partner_id, code from partner")}
    await asyncio.gather(*(world.token(who) for who in held))

    async def counted(self: Any, admitted: Any) -> Any:
        if admitted.points < 10:
            return await run(self, admitted)
        async with held[partners[admitted.caller.party]]:
            return await run(self, admitted)

    monkeypatch.setattr(endpoint.GraphQLEndpoint, "_execute", counted)
    crowded = asyncio.gather(*(world.post(who, asked) for who in held for _ in range(15)))
    await asyncio.sleep(0.01)
    assert (await world.post("grocer", "{ programmes { code } }")).status_code == 200
    assert {answer.status_code for answer in await crowded} == {200}
    assert {who: each.most for who, each in held.items()} == dict.fromkeys(held, 3)


@pytest.mark.parametrize("is_mutation", [False, True])
def test_the_larger_one_partys_operations_are_the_fewer_run_at_once(is_mutation: bool) -> None:
    sizes = shares.MUTATIONS_AT_ONCE if is_mutation else shares.QUERIES_AT_ONCE
    caller, turns = Caller("partner", uuid4(), "partner-x", frozenset()), shares.Turns()
    found = [turns.of(caller, points, is_mutation) for below, _ in sizes for points in (below - 1, below)]
    assert [turn._value for turn in found[::2]] == [most for _, most in sizes] == sorted((most for _, most in sizes), reverse=True)
    assert found[1::2] == [*found[2::2], found[-1]]


async def test_a_partys_reports_and_its_postings_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    turns, caller = shares.Turns(), Caller("partner", uuid4(), "partner-x", frozenset())
    for points in (10, 5_000, 50_000):
        report, posting = turns.of(caller, points), turns.of(caller, points, is_mutation=True)
        assert report is turns.of(caller, points)
        assert report is not posting


PARTYS_CONNECTIONS = read_settings({}).pool_size * 2 // 3


class Held:
    """Blocks of a kind that are held, until so many are there as are expected, and a moment longer."""

    def __init__(self, expected: int) -> None:
        self.now = self.most = 0
        self._expected, self._full = expected, asyncio.Event()

    async def __aenter__(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        if self.now >= self._expected:
            self._full.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._full.wait(), 5)
        await asyncio.sleep(0.05)

    async def __aexit__(self, *_: object) -> None:
        self.now -= 1


@pytest.mark.parametrize("way", ["reading_for", "reading", "transaction"])
async def test_one_party_leaves_connections_for_everybody_else_whatever_it_does(
    world: World, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    held, begun = Held(PARTYS_CONNECTIONS), getattr(Database, way)
    monkeypatch.setattr(shares, "QUERIES_AT_ONCE", ((COST_MAX, 100),))  # however many turns there are
    if way == "reading":
        await world.record("5.00")
        await run_job(world, "seal")
    await asyncio.gather(*(world.token(who) for who in ("grocer", "fuel")))

    @asynccontextmanager
    async def counted(self: Database, *given: Any) -> AsyncIterator[Any]:
        async with begun(self, *given) as tx:
            if PARTY.get() is not None:
                async with held:
                    yield tx
            else:
                yield tx

    monkeypatch.setattr(Database, way, counted)
    asked: dict[str, tuple[str, Any]] = {
        "reading_for": ('{ membership(ref: {externalId: "ann"}) { id } }', {}),
        "reading": ('{ membership(ref: {externalId: "ann"}) { activity(first: 1) { nodes { proof { keyId } } } } }', {}),
        "transaction": ("mutation($i: EnrolMemberInput!) { enrolMember(input: $i) { errors { code } } }", {"i": {"externalId": "ann"}}),
    }
    query, variables = asked[way]
    crowded = asyncio.gather(*(world.post("grocer", query, **variables) for _ in range(40)))
    assert {answer.status_code for answer in await crowded} == {200}
    assert held.most == PARTYS_CONNECTIONS


async def test_whoever_has_its_whole_share_is_told_so_while_others_find_a_connection(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "ACQUIRE_SECONDS", 0.2)
    three, asked = Database(world.dsn, 3), {"buckets": [], "members": []}
    await three.open()
    PARTY.set(uuid4())
    async with three.reading_for(None, None), three.reading_for(None, None):
        with pytest.raises(Stuck, match="one party"):
            await three.read_for(None, None, history.sql.wallets_of_members, **asked)
        PARTY.set(uuid4())
        assert await three.read_for(None, None, history.sql.wallets_of_members, **asked) == []
    PARTY.set(None)
    await three.close()


async def test_who_waits_for_the_log_waits_without_a_connection(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    held, decide = Held(audit.NOTERS_AT_ONCE), people_graph.consents.decide_alone
    await bob_joins(world)
    anns = await ann_logs_in(world)
    members = [row[0] for row in await world.sql("select distinct member_id from card order by 1")]
    tokens = [anns, *[await mint(world, "member", member) for member in members]]

    async def slowly(*given: Any) -> None:
        async with held:
            await decide(*given)

    monkeypatch.setattr(people_graph.consents, "decide_alone", slowly)
    person = "mutation($i: UpdatePersonInput!) { updatePerson(input: $i) { errors { code } } }"
    for token in tokens:
        await world.named(token, person)
    crowded = asyncio.gather(*(world.post(token, person, i={"name": "X"}) for token in tokens for _ in range(8)))
    answers = [answer.status_code for answer in await crowded]
    assert set(answers) == {200}
    # Ann comes with two tokens, and is one party.
    assert held.most == audit.NOTERS_AT_ONCE == 2 * audit.NOTERS_OF_ONE


async def test_who_finds_every_connection_at_work_is_told_that_it_is_busy_and_not_that_the_database_is_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "ACQUIRE_SECONDS", 0.2)
    two = Database(world.dsn, 2)
    await two.open()
    async with two.reading_for(None, None), two.reading_for(None, None):
        with pytest.raises(Stuck):
            await two.read_for(None, None, history.sql.wallets_of_members, buckets=[], members=[])
    assert await two.read_for(None, None, history.sql.wallets_of_members, buckets=[], members=[]) == []
    await two.close()


async def test_a_partners_subscriptions_leave_the_members_own_app_its_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "FOLLOWERS_MAX", 2)
    await agree(world, "balance:read", "profile:read")
    acting = (await exchange(world, await ann_hands_over(world, "balance:read", "profile:read"))).json()["access_token"]
    ann, text = await ann_logs_in(world), "subscription { walletChanged { cursor } }"
    async with open_socket(world, acting) as theirs, open_socket(world, ann) as hers:
        for n, socket_, said in ((0, theirs, "next"), (1, theirs, "next"), (2, theirs, "error"), (3, hers, "next"), (4, hers, "next"), (5, hers, "error")):
            token = acting if socket_ is theirs else ann
            await socket_.send(json.dumps({"type": "subscribe", "id": f"{n}", "payload": await world.named(token, text)}))
            assert (n, (await next_of(socket_))["type"]) == (n, said)


async def test_the_lines_of_a_batch_have_a_price_each_time_that_they_are_given(world: World) -> None:
    line = {"sku": "x", "amount": "0.01"}
    batch = [world.purchase("1.00", member={"externalId": "nobody"}, lines=[line] * 50) for _ in range(1_000)]
    many = "mutation($i: [PurchaseInput!]!) { %s }"
    answer = await world.post("grocer", many % "recordPurchases(input: $i) { errors { code } }", i=batch)
    assert {error["code"] for each in answer.json()["data"]["recordPurchases"] for error in each["errors"]} == {"MEMBER_UNKNOWN"}
    assert answer.json()["extensions"]["cost"]["requestedQueryCost"] > 51_000
    again = await world.post("grocer", many % " ".join(f"a{n}: recordPurchases(input: $i) {{ __typename }}" for n in range(5)), i=batch)
    assert again.json()["errors"][0]["extensions"]["code"] == "COST_TOO_HIGH"
    assert await world.transactions() == 0


async def test_whoever_a_partner_acts_for_it_has_its_own_turns_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "QUERIES_AT_ONCE", ((1, 1), (2, 8), (COST_MAX, 2)))
    await bob_joins(world)
    fuel = (await world.sql("select partner_id from partner where code = 'fuel'"))[0][0]
    members = [row[0] for row in await world.sql("select distinct member_id from card order by 1")]
    assert len(members) == 2
    turns = shares.Turns()
    acting = [Caller("member", member, "partner-fuel", frozenset(), acting_partner_id=fuel) for member in members]
    own = [Caller("member", member, "member-app", frozenset()) for member in members]
    held = [turns.of(caller, 10) for caller in (*acting, *own)]
    assert held[0] is held[1] is turns.of(Caller("partner", fuel, "partner-fuel", frozenset()), 10)
    assert len({id(turn) for turn in held}) == 3


async def test_whoever_comes_while_every_connection_is_at_work_is_told_so_and_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    token = await world.token("grocer")
    ann = await ann_logs_in(world)
    follow = "subscription { walletChanged { cursor } }"
    headers = {"Authorization": f"Bearer {ann}", "Accept": "text/event-stream"}
    current = Catalogue.current

    async def busy(self: Catalogue) -> Any:
        raise Stuck("Every connection is at work.")

    async with open_socket(world, ann) as kept:
        await kept.send(json.dumps({"type": "subscribe", "id": "1", "payload": await world.named(ann, follow)}))
        await next_of(kept)
        monkeypatch.setattr(Catalogue, "current", busy)
        refused = await world.post(token, "{ programmes { code } }")
        assert (refused.status_code, refused.json()["errors"][0]["extensions"]["code"]) == (429, "BUSY")
        await asyncio.sleep(2.2)  # the socket is looked at each second
        monkeypatch.setattr(Catalogue, "current", current)
        await world.record("5.00")
        assert (await next_of(kept))["type"] == "next"
    assert headers


async def test_what_a_mutation_did_is_told_also_to_whose_token_ended_meanwhile(world: World) -> None:
    many = "mutation($i: [PurchaseInput!]!) { recordPurchases(input: $i) { earning { points } errors { code } } }"
    await world.record("1.00")
    token, asked = await world.token("grocer"), {"query": many, "variables": {"i": [world.purchase("7.00")]}}
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}

    async def streamed() -> str:
        return (await world.http.post("/graphql", json=asked, headers=headers)).text

    async with open_socket(world, token) as waits_on_socket, locked_wallet(world):
        await waits_on_socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": {**asked, "variables": {"i": [world.purchase("8.00")]}}}))
        stream = asyncio.create_task(streamed())
        await waits(world, 1)
        world.clock.set(world.clock.now() + timedelta(minutes=6))
        await asyncio.sleep(2.2)  # both are looked at each second
        assert not stream.done()
        told = asyncio.create_task(next_of(waits_on_socket))
        await asyncio.sleep(0)
    # What waited too long for a lock says that it may be sent again, and what was posted says that.
    assert "UNAUTHENTICATED" not in await stream
    assert (await told)["type"] == "next"
