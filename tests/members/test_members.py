"""Enrolling, linking and finding members, each partner with ids of its own."""

import asyncio
from uuid import UUID, uuid4

import pytest

from gateway import ids
from gateway.coalition.connector import PartnerRefused
from gateway.database import Database
from gateway.members.lookup import MemberLookup, MemberRef
from partners.protocols.rest_json import RestJson
from tests.house.test_embedded import Gateway
from tests.points import codes
from tests.world import World

ENROL = "mutation($i: EnrolMemberInput!) { enrolMember(input: $i) { membership { id externalId } errors { code } } }"
LINK = "mutation($i: LinkMembershipInput!) { linkMembership(input: $i) { membership { id externalId } errors { code } } }"
FIND = "query($ref: MemberRef!) { membership(ref: $ref) { id externalId partner { code } } }"


async def members(world: World) -> int:
    return (await world.sql("select count(*) from member"))[0][0]


async def test_one_person_has_another_id_at_every_partner(world: World) -> None:
    found = [(await world.ask(p, FIND, ref={"card": "CARD-1"}))["membership"] for p in ("grocer", "fuel", "airline")]
    assert len({m["id"] for m in found}) == 3
    assert [m["partner"]["code"] for m in found] == ["grocer", "fuel", "airline"]
    for ref in ({"externalId": "ann"}, {"membershipId": found[0]["id"]}):
        assert (await world.ask("grocer", FIND, ref=ref))["membership"] == found[0]


async def test_another_partners_member_is_as_unknown_as_nobody(world: World) -> None:
    mine = (await world.ask("grocer", FIND, ref={"externalId": "ann"}))["membership"]["id"]
    assert (await world.ask("fuel", FIND, ref={"membershipId": mine}))["membership"] is None
    node = "query($id: ID!) { node(id: $id) { id } }"
    assert (await world.ask("fuel", node, id=mine))["node"] is None
    assert (await world.ask("grocer", node, id=mine))["node"] == {"id": mine}


async def test_enrolling_again_answers_with_the_membership_that_is_there(world: World) -> None:
    input = {"externalId": "bob", "card": "CARD-2"}
    first = await world.ask("grocer", ENROL, i=input)
    assert await world.ask("grocer", ENROL, i=input) == first
    assert await members(world) == 2


async def test_the_same_person_enrolled_at_once_becomes_one_member(world: World) -> None:
    answers = await asyncio.gather(*(world.ask("grocer", ENROL, i={"externalId": "bob", "card": "C"}) for _ in range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["enrolMember"]["errors"] == []
    assert await members(world) == 2
    links = await asyncio.gather(*(world.ask("fuel", LINK, i={"externalId": "bob", "card": "C"}) for _ in range(8)))
    assert all(link == links[0] for link in links)
    assert links[0]["linkMembership"]["errors"] == []


async def test_characters_that_cannot_be_stored_name_nobody(world: World) -> None:
    assert (await world.ask("grocer", FIND, ref={"externalId": "a\u0000"}))["membership"] is None
    answer = await world.ask("grocer", ENROL, i={"externalId": "a\u0000", "card": "b\u0000"})
    assert [e["code"] for e in answer["enrolMember"]["errors"]] == ["INPUT_NOT_ACCEPTED"]
    assert await members(world) == 1


async def test_ids_and_cards_of_others_are_conflicts_that_create_nobody(world: World) -> None:
    taken = await world.ask("grocer", ENROL, i={"externalId": "new", "card": "CARD-1"})
    assert [e["code"] for e in taken["enrolMember"]["errors"]] == ["STATE_CONFLICT"]
    await world.ask("grocer", ENROL, i={"externalId": "bob", "card": "CARD-2"})
    other = await world.ask("grocer", ENROL, i={"externalId": "ann", "card": "CARD-2"})
    assert [e["code"] for e in other["enrolMember"]["errors"]] == ["STATE_CONFLICT"]
    third = await world.ask("grocer", ENROL, i={"externalId": "bob", "card": "CARD-3"})
    assert [e["code"] for e in third["enrolMember"]["errors"]] == ["STATE_CONFLICT"]
    assert await members(world) == 2
    assert (await world.sql("select count(*) from card where number = 'CARD-3'"))[0][0] == 0


async def test_linking_an_unknown_card_is_refused(world: World) -> None:
    answer = await world.ask("fuel", LINK, i={"externalId": "x", "card": "NOBODY"})
    assert [e["code"] for e in answer["linkMembership"]["errors"]] == ["MEMBER_UNKNOWN"]


async def test_a_blocked_card_finds_nobody_and_posts_nothing(world: World) -> None:
    await world.sql("update card set status = 'blocked'")
    answer = await world.record("10.00", member={"card": "CARD-1"})
    assert [e["code"] for e in answer["errors"]] == ["CARD_BLOCKED"]
    assert await world.transactions() == 0


async def test_who_keeps_the_gateway_blocks_a_lost_card_and_suspends_a_member_by_command(world: World) -> None:
    gateway = Gateway(world.data_dir)
    gateway.environment |= {"DATABASE_URL": world.dsn}

    async def bought(partner: str, member: dict[str, str]) -> list[str]:
        return codes(await world.record("10.00", who=partner, member=member))

    for said, command in (("blocked", ("card", "block", "CARD-1")), ("suspended", ("member", "suspend", "grocer", "ann"))):
        ran = gateway.run(*command)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert said in ran.stdout
    assert await bought("grocer", {"externalId": "ann"}) == ["MEMBERSHIP_SUSPENDED"]
    assert await bought("fuel", {"card": "CARD-1"}) == ["CARD_BLOCKED"]
    for query in (ENROL, LINK):
        (again,) = (await world.ask("fuel", query, i={"externalId": "ann", "card": "CARD-1"})).values()
        assert codes(again) == ["CARD_BLOCKED"]
    assert await world.transactions() == 0
    assert await bought("fuel", {"externalId": "ann"}) == []  # each partner's own
    for command in (("card", "admit", "CARD-1"), ("member", "admit", "grocer", "ann")):
        assert gateway.run(*command).returncode == 0
    assert await bought("grocer", {"card": "CARD-1"}) == []
    assert await bought("grocer", {"externalId": "ann"}) == []
    for command in (("card", "block", "CARD-9"), ("member", "suspend", "fuel", "bob"), ("member", "admit", "nobody", "ann")):
        ran = gateway.run(*command)
        assert ran.returncode == 2
        assert "obody" in ran.stderr
    stopped = "select from card where status <> 'active' union all select from membership where status <> 'active'"
    assert await world.sql(stopped) == []
    member = ids.show("mem", (await world.sql("select member_id from card where number = 'CARD-1'"))[0][0])
    done = await world.ask(await world.operator(), "query($m: ID) { audit(filter: {about: $m}, first: 9) { nodes { action } } }", m=member)
    assert {each["action"] for each in done["audit"]["nodes"]} == {"card blocked", "member suspended", "card active", "member active"}


async def test_exactly_one_way_of_naming_a_member_is_accepted(world: World) -> None:
    answer = await world.post("grocer", FIND, ref={"externalId": "ann", "card": "CARD-1"})
    assert "errors" in answer.json()
    assert "data" not in answer.json()


@pytest.mark.parametrize("id", [".", ".."])
async def test_what_is_a_way_to_somewhere_else_in_an_address_names_nobody(world: World, id: str) -> None:
    before = await members(world)
    assert codes((await world.ask("airline", ENROL, i={"externalId": id}))["enrolMember"]) == ["INPUT_NOT_ACCEPTED"]
    assert codes((await world.ask("fuel", LINK, i={"externalId": id, "card": "CARD-1"}))["linkMembership"]) == ["INPUT_NOT_ACCEPTED"]
    assert await members(world) == before
    # Nor is a partner's own system asked for one that was there before.
    asked = RestJson(world.airline_url)
    for ask in (asked.balance(id), asked.credit(id, 5, "r"), asked.credit("ann", 5, id)):
        with pytest.raises(PartnerRefused):
            await ask
    assert await asked.balance("ann") == 0
    await asked.close()


async def test_more_than_a_thousand_at_once_are_refused_whole(world: World) -> None:
    before, many = await members(world), [{"externalId": f"e{n}"} for n in range(1_001)]
    found = (await world.post("grocer", "query($r: [MemberRef!]!) { membershipsByRef(refs: $r) { id } }", r=many)).json()
    joined = (await world.post("grocer", "mutation($i: [EnrolMemberInput!]!) { enrolMembers(input: $i) { errors { code } } }", i=many)).json()
    for answer in (found, joined):
        assert (answer["data"], answer["errors"][0]["extensions"]["code"]) == (None, "BAD_INPUT")
        assert "1001" in answer["errors"][0]["message"].replace(",", "")
    assert await members(world) == before


async def test_a_refusal_says_back_the_beginning_of_what_nobody_is_known_by(world: World) -> None:
    long = "x" * 100_000
    answer = await world.post("grocer", "query($r: MemberRef!) { membership(ref: $r) { id } }", r={"externalId": long})
    refused = await world.redeem(1, member={"externalId": long})
    assert [error["code"] for error in refused["errors"]] == ["MEMBER_UNKNOWN"]
    assert len(refused["errors"][0]["message"]) < 700
    assert len(answer.content) < 2_000


async def test_who_looks_one_member_up_waits_for_no_others_thousands(world: World) -> None:
    found: list[str] = []
    async with Database(world.dsn, 2) as database:
        lookup = MemberLookup(database)

        async def find(who: str, partner: UUID, count: int) -> None:
            await lookup.find(partner, [MemberRef("external_id", f"nobody-{n}") for n in range(count)])
            found.append(who)

        many, one = uuid4(), uuid4()
        await asyncio.gather(*(find("many", many, 1_000) for _ in range(3)), find("one", one, 1))
    assert found == ["one", "many", "many", "many"]
