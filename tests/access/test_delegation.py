"""What a member's yes opens to a partner that acts for it, scope by scope, and what it does not."""

import json
from uuid import UUID

import pytest

from gateway import ids
from gateway.access.scopes import DELEGABLE
from gateway.http.guard import rights
from gateway.http.rights import opens
from tests.access.consenting import agree, exchange
from tests.conversion.exchanging import CONVERT, QUOTE
from tests.events.following import next_of, open_socket
from tests.members.test_members import LINK
from tests.points import HOLD, TRANSFER, ann_hands_over, ann_logs_in, bob_joins, codes
from tests.world import World, engine, said_by

# What is told of whom a member knows, of what it did, and of who it is.
TOLD = {
    "Activity", "Adjustment", "Card", "Earning", "Expiration", "Membership", "NativeBalance", "Person", "Purchase", "PurchaseReturn",
    "Redemption", "RedemptionReversal", "Take",
}  # fmt: skip


@pytest.mark.parametrize("scope", sorted(DELEGABLE - {"profile:read"}))
def test_no_scope_that_a_member_gives_but_the_one_that_says_so_opens_its_activity(scope: str) -> None:
    needs = rights(engine()._schema)
    opened_by_it = {f"{type_}.{field}" for (type_, field), need in needs.items() if opens(need, frozenset({scope}))}
    balances = {"Membership.wallets", "Membership.nativeBalance", "NativeBalance.availability", "NativeBalance.points"}
    assert {each for each in opened_by_it if each.split(".")[0] in TOLD} == (balances if scope == "balance:read" else set())
    assert not {"Member.activity", "Member.memberships", "Member.cards", "WalletEvent.activity"} & opened_by_it


async def acting(world: World, *scopes: str, who: str = "fuel") -> str:
    """A token of a partner that acts for Ann, who allowed it this and no more."""
    await agree(world, *scopes, partner=who)
    answer = await exchange(world, await ann_hands_over(world, *scopes), who)
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["access_token"]
    return token


async def test_who_may_convert_and_read_balances_reads_no_receipt_of_another_partner(world: World) -> None:
    await world.record("37.21", receipt="PHARMACY-4711")
    token = await acting(world, "balance:read", "points:convert")
    me = ids.show("mem", UUID(said_by(token)["sub"]))
    past = "query($id: ID!) { node(id: $id) { ... on Member { wallets { history(first: 5) { nodes { transaction } } } } } }"
    wallets = (await world.ask(token, past, id=me))["node"]["wallets"]
    earning = next(each["transaction"] for wallet in wallets for each in wallet["history"]["nodes"])
    membership = (await world.sql("select membership_id from membership where external_id = 'ann'"))[0][0]
    for text, id in (
        ("... on Earning { purchase { receipt } }", earning),
        ("... on Activity { points }", earning),
        ("... on Membership { externalId }", ids.show("mbs", membership)),
    ):
        answer = await world.post(token, f"query($id: ID!) {{ node(id: $id) {{ {text} }} }}", id=id)
        assert answer.status_code == 403
        assert "PHARMACY" not in answer.text
    assert (await world.ask(token, "query($id: ID!) { node(id: $id) { id __typename } }", id=earning))["node"] is None
    events = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
    for text in ("{ me { activity(first: 1) { nodes { id } } } }", "subscription { walletChanged { activity { points } } }"):
        assert (await world.http.post("/graphql", json={"query": text}, headers=events)).status_code == 403
    assert (await world.ask(await acting(world, "profile:read", "balance:read"), "query($id: ID!) { node(id: $id) { id } }", id=earning))["node"]


async def test_who_may_convert_sees_the_exchange_that_it_made_and_not_one_that_another_made(world: World) -> None:
    await world.record("900.00")
    made = {}
    for who in ("airline", "fuel"):
        token = await acting(world, "points:convert", who=who)
        quote = (await world.ask(token, QUOTE, input={"from": "MER", "to": "SKY", "take": 200}))["quoteConversion"]
        answer = (await world.ask(token, CONVERT, input={"idempotencyKey": f"by {who}", "quote": quote["quote"]["id"]}))["convertPoints"]
        assert codes(answer) == []
        made[who] = answer["conversion"]["id"], token
    query = "query($id: ID!) { node(id: $id) { ... on Conversion { give } } }"
    # The exchange is with the airline, whoever asked for it: the airline sees both, the fuel station neither again.
    assert [(await world.ask(made["airline"][1], query, id=made[who][0]))["node"]["give"] for who in made] == [100, 100]
    assert [(await world.ask(made["fuel"][1], query, id=made[who][0]))["node"] for who in made] == [None, None]


async def test_who_may_read_balances_follows_them_and_is_not_told_what_happened(world: World) -> None:
    token = await acting(world, "balance:read")
    subscribed = {"query": "subscription { walletChanged { kind wallets { available } } }"}
    async with open_socket(world, token) as socket:
        await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": subscribed}))
        assert (await next_of(socket))["payload"]["data"]["walletChanged"]["kind"] is None
        await world.record("5.00")
        seen = (await next_of(socket))["payload"]["data"]["walletChanged"]
        assert (seen["kind"], seen["wallets"][0]["available"]) == ("earning", 5)


async def test_who_acts_reads_no_whole_number_of_a_card_and_cannot_spend_with_what_it_reads(world: World) -> None:
    token, ann = await acting(world, "profile:read", who="airline"), await ann_logs_in(world)
    cards = "{ me { cards { number status } } }"
    assert (await world.ask(ann, cards))["me"]["cards"] == [{"number": "CARD-1", "status": "ACTIVE"}]
    (read,) = (await world.ask(token, cards))["me"]["cards"]
    assert read["number"] == "...1"
    linked = (await world.ask("airline", LINK, i={"externalId": "by what was read", "card": read["number"]}))["linkMembership"]
    assert codes(linked) == ["MEMBER_UNKNOWN"]


async def test_who_acts_for_a_member_does_not_read_what_others_wrote_to_it(world: World) -> None:
    await bob_joins(world)
    await world.record("50.00")
    ann = await ann_logs_in(world)
    given = {"idempotencyKey": "gift", "card": "CARD-2", "programme": "MER", "points": 7, "message": "for your taxi to the clinic"}
    gift = (await world.ask(ann, TRANSFER, i=given))["transferPoints"]["transfer"]
    query = "{ me { activity(first: 1) { nodes { points ... on Transfer { message } } } } }"
    told = {"points": -7, "message": given["message"]}
    assert (await world.ask(ann, query))["me"]["activity"]["nodes"] == [told]
    acted = await world.post(await acting(world, "profile:read", "balance:read"), query)
    assert acted.json()["data"]["me"]["activity"]["nodes"] == [{**told, "message": None}]
    assert "clinic" not in acted.text
    seen = await world.post(await world.operator(), "query($i: ID!) { node(id: $i) { ... on Transfer { points message } } }", i=gift["id"])
    assert seen.json()["data"]["node"] == {**told, "message": None}


async def test_who_may_read_balances_does_not_read_another_partners_hold_by_its_id(world: World) -> None:
    await world.record("50.00")
    placed = {"idempotencyKey": "h", "member": {"externalId": "ann"}, "programme": "MER", "points": 5, "reference": "pump 7"}
    hold = (await world.ask("grocer", HOLD, i=placed))["holdPoints"]["hold"]["id"]
    query = "query($id: ID!) { node(id: $id) { ... on Hold { reference } } }"
    assert (await world.ask("grocer", query, id=hold))["node"] == {"reference": "pump 7"}
    assert (await world.ask(await ann_logs_in(world), query, id=hold))["node"] == {"reference": "pump 7"}
    assert (await world.ask(await acting(world, "balance:read"), query, id=hold))["node"] is None


async def test_a_balance_in_another_partners_system_is_a_balance(world: World) -> None:
    query = "{ me { memberships { partner { code } nativeBalance { availability } } } }"
    assert (await world.post(await acting(world, "profile:read"), query)).status_code == 403
    found = (await world.ask(await acting(world, "balance:read", "profile:read"), query))["me"]["memberships"]
    assert {"code": "airline"} in [each["partner"] for each in found if each["nativeBalance"]["availability"] == "AVAILABLE"]
