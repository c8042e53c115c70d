"""A token of an outside issuer, remembered by the gateway, serves no longer than whom it names may come."""

import asyncio
import base64
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, Key, RSAKey

from gateway.access.clients import unverified
from gateway.http.documents import document_id
from gateway.http.doorman import Doorman
from gateway.ids import new_id_in, show
from tests.access.consenting import FOLLOW, GRANT, PERSON
from tests.access.issuing import Publisher, forge, publishing, trusting
from tests.conversion.exchanging import QUOTE
from tests.events.following import closed_with, next_of, open_socket
from tests.house.test_embedded import Gateway
from tests.http.test_shares import PARTYS_CONNECTIONS
from tests.points import ann_logs_in, bob_joins, codes, second_operator, until_revoked
from tests.world import Place, World, open_world

AUDIENCE = "https://gateway.example/graphql"
ME = "{ me { id } }"
LOG = "{ audit(first: 1) { nodes { action } } }"
FORGET = "mutation { forgetPerson(input: {confirm: true}) { errors { code } } }"


@asynccontextmanager
async def known_outside(place: Place, kind: str, ceiling: str, *other_keys: Key) -> AsyncIterator[tuple[World, str]]:
    """A world, and one token of an issuer that it trusts: of Olga as an operator, or of Ann, who has no account here. The issuer
    publishes its other keys before the one that signed."""
    key = ECKey.generate_key("P-256", {"kid": "k"}, private=True)
    publisher = Publisher()
    publisher.keys = [*other_keys, key]
    async with publishing(publisher) as url:
        said = {"kind": f'"{kind}"', "ceiling": ceiling, "claims": "{}", "algorithms": '["ES256"]', "jwks_uri": f'"{url}/keys"'}
        file = trusting(place.folder, url, AUDIENCE, **said)
        async with open_world(place, issuers_file=file, jwks_hosts=(url.removeprefix("http://"),)) as world:
            who = {"operator": "select account_id from account where login = 'olga'", "member": "select member_id from card"}[kind]
            await world.sql("insert into outside_identity values ($1, 'x', $2, $3, now())", url, kind, (await world.sql(who))[0][0])
            now = int(world.clock.now().timestamp())
            claims = {"iss": url, "aud": AUDIENCE, "sub": "x", "exp": now + 3_600, "jti": "one", "scope": ceiling.strip("[]").replace('", "', " ").strip('"')}
            yield world, jwt.encode({"alg": "ES256", "typ": "at+jwt", "kid": "k"}, claims, key, algorithms=["ES256"])


async def test_keys_of_an_issuer_that_share_an_id_are_all_tried(place: Place) -> None:
    """RFC 7517, section 4.5."""
    others = (RSAKey.generate_key(2048, {"kid": "k"}, private=True), ECKey.generate_key("P-256", {"kid": "k"}, private=True))
    async with known_outside(place, "operator", '["audit:read"]', *others) as (world, token):
        assert (await world.post(token, LOG)).json()["data"]["audit"]["nodes"] is not None
        stranger = jwt.encode({"alg": "ES256", "typ": "at+jwt", "kid": "k"}, unverified(token, 1), ECKey.generate_key("P-256"), algorithms=["ES256"])
        assert (await world.post(stranger, LOG)).status_code == 401


async def test_the_moments_of_an_outside_token_may_have_a_fraction(place: Place) -> None:
    """RFC 7519, section 2."""
    key = ECKey.generate_key("P-256", {"kid": "two"}, private=True)
    async with known_outside(place, "operator", '["audit:read"]', key) as (world, token):
        claims, now = unverified(token, 1), world.clock.now().timestamp()

        async def status(**changes: object) -> int:
            said = {**claims, **changes}
            return (await world.post(jwt.encode({"alg": "ES256", "typ": "at+jwt", "kid": "two"}, said, key, algorithms=["ES256"]), LOG)).status_code

        assert await status(exp=now + 60.5, nbf=now - 0.5) == 200
        ended = [await status(exp=moment) for moment in (now - 0.5, float("nan"), float("inf"), None, "1")]
        early = [await status(nbf=moment) for moment in (now + 60.5, float("-inf"), None)]
        assert ended + early == [401] * 8


async def test_who_is_disabled_is_nobody_within_two_seconds_whatever_was_remembered(place: Place) -> None:
    async with known_outside(place, "operator", '["audit:read"]') as (world, token):
        for _ in range(3):
            assert (await world.post(token, LOG)).status_code == 200
        await world.disable("olga")
        await until_revoked(world, token)


@pytest.mark.parametrize("change", ["update account set roles = '{support}'", "delete from outside_identity"])
async def test_who_it_is_and_what_it_may_is_looked_up_again_each_half_minute(place: Place, change: str) -> None:
    async with known_outside(place, "operator", '["audit:read"]') as (world, token):
        assert (await world.post(token, LOG)).status_code == 200
        await world.sql(change)
        assert (await world.post(token, LOG)).status_code == 200
        world.clock.set(world.clock.now() + timedelta(seconds=31))
        assert (await world.post(token, LOG)).status_code == (403 if "roles" in change else 401)


async def test_a_member_that_others_log_in_is_forgotten_within_two_seconds_too(place: Place) -> None:
    async with known_outside(place, "member", '["profile:read", "profile:write"]') as (world, token):
        issuer = (await world.sql("select issuer from outside_identity"))[0][0]
        headers, ids = {"Authorization": f"Bearer {token}"}, {text: document_id(text) for text in (FORGET, "{ __typename }")}
        for text, id in ids.items():
            (world.data_dir / f"{id}.graphql").write_text(text)
        gateway = Gateway(world.data_dir)
        gateway.environment |= {"DATABASE_URL": world.dsn}
        files = [str(world.data_dir / f"{id}.graphql") for id in ids.values()]
        registered = await asyncio.to_thread(gateway.run, "documents", "register", issuer, *files)
        assert registered.returncode == 0, registered.stderr
        said = await world.http.post("/graphql", json={"documentId": ids[FORGET]}, headers=headers)
        assert said.json()["data"]["forgetPerson"]["errors"] == []
        async with asyncio.timeout(2):
            while (await world.http.post("/graphql", json={"documentId": ids["{ __typename }"]}, headers=headers)).status_code != 401:
                await asyncio.sleep(0.05)
        assert await world.sql("select from outside_identity") == []


@pytest.mark.parametrize("change", ["update account set roles = '{support}' where login = 'olga'", "update outside_identity set subject_id = $1"])
async def test_whoever_has_become_somebody_else_does_not_stay_on_a_socket_as_who_it_was(place: Place, change: str) -> None:
    async with known_outside(place, "operator", '["audit:read"]') as (world, token):
        await second_operator(world)
        otto = (await world.sql("select account_id from account where login = 'otto'"))[0][0]
        async with open_socket(world, token) as socket:
            await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": {"query": LOG}}))
            assert (await next_of(socket))["type"] == "next"
            await world.sql(change, *([otto] if "$1" in change else []))
            world.clock.set(world.clock.now() + timedelta(seconds=31))
            assert await closed_with(socket) == 4403


async def test_nobody_is_linked_who_is_not_there_and_no_subject_that_no_token_could_name(world: World) -> None:
    gateway = Gateway(world.data_dir)
    gateway.environment |= {"DATABASE_URL": world.dsn}
    nobody = show("mem", new_id_in(0))
    issuer = "https://idp.example"
    for subject, who, told in (
        ("", ["--partner", "fuel"], "subject must have 1 to 500 printable characters."),
        ("a\nb", ["--partner", "fuel"], "subject must have 1 to 500 printable characters."),
        ("someone", ["--member", nobody], f"There is no member '{nobody}'."),
    ):
        refused = await asyncio.to_thread(gateway.run, "issuer", "link", issuer, subject, *who)
        assert refused.returncode != 0
        assert told in " ".join(re.sub("[│╭╮╰╯─]", " ", refused.stderr).split())
    assert await world.sql("select count(*) from outside_identity where issuer = $1", issuer) == [(0,)]
    noted = await world.sql("select result, about from audit_log where action = 'issuer link'")
    assert [tuple(row) for row in noted] == [("ASKED", [nobody])]  # the others ask for nothing that could be


async def test_the_audit_log_says_whom_a_subject_was_taken_from_and_not_what_an_issuer_calls_a_member(world: World) -> None:
    await bob_joins(world)
    gateway = Gateway(world.data_dir)
    gateway.environment |= {"DATABASE_URL": world.dsn}
    ann, bob = (show("mem", row[0]) for row in await world.sql("select member_id from card order by number"))
    subject = ("https://idp.example", "ann.other@example.org")
    for command in (["link", *subject, "--member", ann], ["link", *subject, "--member", bob], ["link", *subject, "--partner", "fuel"], ["unlink", *subject], ["link", *subject, "--partner", "fuel"]):
        ran = await asyncio.to_thread(gateway.run, "issuer", *command)
        assert ran.returncode == 0, ran.stderr
    ran = await asyncio.to_thread(gateway.run, "partner", "suspend", "fuel")
    assert ran.returncode == 0, ran.stderr
    refused = await asyncio.to_thread(gateway.run, "token", "--partner", "fuel")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "gateway partner admit fuel" in " ".join(re.sub("[│╭╮╰╯─]", " ", refused.stderr).split())
    noted = await world.sql("select action, about from audit_log where result = 'ok' order by number")
    fuel = show("ptn", (await world.sql("select partner_id from partner where code = 'fuel'"))[0][0])
    assert [(row["action"], row["about"]) for row in noted] == [
        ("issuer link", [ann]), ("issuer link", [bob, ann]), ("issuer link", [fuel, bob]), ("issuer unlink", [fuel]), ("issuer link", [fuel]), ("partner suspended", [fuel]),
    ]  # fmt: skip
    log = "{ audit(first: 20) { nodes { action details } } }"
    told = (await world.ask(await world.operator(), log))["audit"]["nodes"]
    of_subject = [each["action"] for each in told if "ann.other" in str(each["details"])]
    assert of_subject == ["issuer link", "issuer unlink"]  # while it was the partner's, and no member's before


async def test_the_audit_log_says_whose_password_client_history_and_token_a_command_was_about(world: World) -> None:
    gateway = Gateway(world.data_dir)
    gateway.environment |= {"DATABASE_URL": world.dsn, "GATEWAY_PASSWORD": "a password that is long"}
    ann = show("mem", (await world.sql("select member_id from card where number = 'CARD-1'"))[0][0])
    fuel = show("ptn", (await world.sql("select partner_id from partner where code = 'fuel'"))[0][0])
    commands = ("operator create eve", "operator create eve", "member password CARD-1 annie", "member history CARD-1", "partner client fuel",
                "token --operator eve", "operator code eve", "operator factor eve", "operator disable eve", "token --partner fuel",
                "settle 2026-01 --early")  # fmt: skip
    for command in commands:
        ran = await asyncio.to_thread(gateway.run, *command.split())
        assert ran.returncode == 0, ran.stderr
    told = (await world.ask(await world.operator(), "{ audit(first: 40) { nodes { action result about details } } }"))["audit"]["nodes"]
    noted = [each for each in reversed(told) if each["result"] == "ok" and each["action"] in {c.rsplit(" ", 1)[0] for c in commands}]
    by_action = {each["action"]: each["about"] for each in reversed(told) if each["result"] == "ok"}
    eve = show("opr", (await world.sql("select account_id from account where login = 'eve'"))[0][0])
    of_eve = [each["action"] for each in told if each["about"] == [eve]]
    assert of_eve == ["operator disable", "operator factor", "operator code", "token", "operator create", "operator create"]
    assert [by_action[f"{command}"] for command in ("member password", "member history", "partner client", "token")] == [[ann], [ann], [fuel], [fuel]]
    assert [json.loads(each["details"])["early"] for each in told if each["action"] == "settle"] == [True, True]  # asked, and done
    assert [json.loads(each["details"])["roles"] for each in noted if each["action"] == "operator create"] == [["admin"], ["admin"]]


async def test_an_address_that_is_given_in_place_of_an_id_does_not_stay_in_plain(world: World) -> None:
    gateway = Gateway(world.data_dir)
    gateway.environment |= {"DATABASE_URL": world.dsn}
    for command in ("token", "issuer link https://idp.example sub-1"):
        ran = await asyncio.to_thread(gateway.run, *command.split(), "--member", "ann.smith@example.com")
        assert (ran.returncode, "There is no member" in ran.stderr) == (2, True)
    noted = await world.sql("select action, result, about, audit_log::text as plain from audit_log order by number")
    assert [(row["action"], row["result"], row["about"]) for row in noted] == [("token", "ASKED", []), ("issuer link", "ASKED", [])]
    assert not any("ann.smith" in row["plain"] for row in noted)


async def registered(world: World, *texts: str) -> dict[str, str]:
    """The ids of documents that the outside issuer's app has registered."""
    issuer = (await world.sql("select issuer from outside_identity"))[0][0]
    for text in texts:
        await world.sql("insert into trusted_document values ($1, $2, $3, now())", issuer, document_id(text), text)
    return {text: document_id(text) for text in texts}


async def test_who_is_forgotten_meanwhile_keeps_nothing_for_an_outside_token_that_came_at_that_moment(place: Place) -> None:
    async with known_outside(place, "member", '["profile:read", "profile:write", "consents:manage"]') as (world, token):
        ids, local = await registered(world, GRANT, PERSON, ME), await ann_logs_in(world)

        async def send(text: str, **variables: Any) -> httpx.Response:
            asked = {"documentId": ids[text], "variables": variables}
            return await world.http.post("/graphql", json=asked, headers={"Authorization": f"Bearer {token}"})

        log = await asyncpg.connect(world.dsn)
        waiting = log.transaction()
        await waiting.start()
        await log.execute("select public.note_deed(now(), 'nobody', null, 'x', null, 'log in', 'WRONG', '{}'::text[], '\\x00'::bytea)")
        forget = asyncio.create_task(world.post(local, FORGET))
        async with asyncio.timeout(5):
            while not await world.sql("select from pg_locks where not granted"):
                await asyncio.sleep(0.02)
        world.clock.set(world.clock.now() + timedelta(seconds=2))
        assert (await send(ME)).status_code == 200  # what it is looked up by is still there
        asked = {"partner": "fuel", "purpose": "p", "scopes": ["balance:read"], "dataClasses": ["contact"]}
        late = [asyncio.create_task(each) for each in (send(GRANT, i=asked), send(PERSON, i={"email": "ann@example.org"}))]
        await asyncio.sleep(0.3)
        await waiting.rollback()
        await log.close()
        assert (await forget).json()["data"]["forgetPerson"]["errors"] == []
        for answer in await asyncio.gather(*late):
            if answer.status_code == 200:
                (payload,) = answer.json()["data"].values()
                assert codes(payload) == ["NOT_ALLOWED"]
        assert await world.sql("select from person") == await world.sql("select from consent where withdrawn_at is null") == []
        async with asyncio.timeout(2):
            while (await send(ME)).status_code != 401:
                await asyncio.sleep(0.05)


async def test_nobody_stays_for_filling_its_own_share_of_connections(place: Place) -> None:
    async with known_outside(place, "member", '["balance:read", "points:convert"]') as (world, token):
        ids = await registered(world, FOLLOW, QUOTE)
        headers = {"Authorization": f"Bearer {token}"}
        events: list[str] = []

        async def follow() -> None:
            asked = {"json": {"documentId": ids[FOLLOW]}, "headers": {**headers, "Accept": "text/event-stream"}}
            async with world.http.stream("POST", "/graphql", timeout=60, **asked) as stream:
                events.extend([line async for line in stream.aiter_lines()])

        following = asyncio.create_task(follow())
        await asyncio.sleep(0.3)
        holder = await asyncpg.connect(world.dsn)
        async with holder.transaction():
            await holder.execute("lock table quote in share mode")
            wanted = {"documentId": ids[QUOTE], "variables": {"input": {"from": "MER", "to": "SKY", "take": 200}}}
            asking = [asyncio.create_task(world.http.post("/graphql", json=wanted, headers=headers, timeout=60)) for _ in range(10)]
            async with asyncio.timeout(5):
                while len(await world.sql("select from pg_locks where not granted")) < PARTYS_CONNECTIONS:
                    await asyncio.sleep(0.02)
            unlinked = "with gone as (delete from outside_identity returning subject_id)"
            await world.sql(
                f"{unlinked} insert into revocation select 'sub:' || subject_id, $1, $2 from gone",
                world.clock.now(), world.clock.now() + timedelta(minutes=10),
            )  # fmt: skip
            await asyncio.wait_for(following, 5)
        await asyncio.gather(*asking)
        await holder.close()
        assert "UNAUTHENTICATED" in "".join(events)


async def test_who_cannot_be_looked_up_now_waits_a_little_and_who_is_known_stays(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[bool] = []
    still_knows = Doorman.still_knows

    async def noted(self: Doorman, *given: Any) -> bool:
        looked.append(await still_knows(self, *given))
        return looked[-1]

    monkeypatch.setattr(Doorman, "still_knows", noted)
    async with known_outside(place, "operator", '["audit:read"]') as (world, token):
        assert (await world.post(token, LOG)).status_code == 200
        await second_operator(world)
        began = time.monotonic()
        async with open_socket(world, token) as socket:
            holder = await asyncpg.connect(world.dsn)
            async with holder.transaction():
                await holder.execute("lock table outside_identity in access exclusive mode")
                world.clock.set(world.clock.now() + timedelta(seconds=31))  # it is to be looked up again
                assert (await world.post(token, LOG)).status_code in (429, 503)
                assert time.monotonic() - began < 6
                looked.clear()
                async with asyncio.timeout(10):
                    while len(looked) < 2:  # the socket has looked, too
                        await asyncio.sleep(0.02)
                assert looked == [True] * len(looked)
            await holder.close()
            await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": {"query": LOG}}))
            assert (await next_of(socket))["type"] == "next"


async def test_a_token_whose_issuer_is_a_nest_of_lists_is_of_nobody(place: Place) -> None:
    async with known_outside(place, "operator", '["audit:read"]') as (world, _):
        for said in ('{"iss":%s}' % ("[" * 1_000 + "]" * 1_000), '{"iss":{"a":1}}', '{"iss":null}', "[]", '"x"'):
            claims = base64.urlsafe_b64encode(said.encode()).rstrip(b"=").decode()
            answer = await world.http.post("/graphql", json={"query": LOG}, headers={"Authorization": f"Bearer e30.{claims}.x"})
            assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (401, "UNAUTHENTICATED")


async def test_a_stranger_is_not_told_where_an_issuers_keys_lie(place: Place) -> None:
    issuer, where = "https://issuer.example", "http://127.0.0.1:9/inside/keys"
    said = {"claims": "{}", "algorithms": '["ES256"]', "jwks_uri": f'"{where}"'}
    file = trusting(place.folder, issuer, AUDIENCE, **said)
    async with open_world(place, issuers_file=file, jwks_hosts=("127.0.0.1:9",)) as world:
        refused = await world.post(forge(issuer, AUDIENCE, "k"), ME)
        assert (refused.status_code, "cannot be had now" in refused.text) == (401, True)
        assert "127.0.0.1:9" not in refused.text + str(refused.headers)
