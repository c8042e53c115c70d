"""Consent: what a member allows a partner, on the page or in its app; token exchange under it; and its end."""

import asyncio
import json
from datetime import timedelta
from urllib.parse import parse_qs, urlparse

import pytest
from joserfc.jwk import ECKey

from gateway.access import consents
from gateway.access.consents import NOTICE_VERSION
from gateway.access.grants import ACCESS_TOKEN_TYPE
from tests.access.consenting import (
    EXCHANGE,
    FOLLOW,
    GRANT,
    ME,
    PERSON,
    WITHDRAW,
    agree,
    ask_on_the_page,
    client_with_page,
    exchange,
)
from tests.access.test_keys import proof
from tests.access.test_oauth import authorization
from tests.points import ann_hands_over, ann_logs_in, codes, until_revoked
from tests.world import World, said_by


async def test_a_partner_acts_for_a_member_who_allowed_it_and_no_further(world: World) -> None:
    await world.record("30.00")
    await agree(world, "balance:read", "profile:read")
    answer = (await exchange(world, await ann_hands_over(world, "balance:read", "profile:read"))).json()
    assert answer["issued_token_type"] == ACCESS_TOKEN_TYPE
    assert answer["scope"] == "balance:read profile:read"
    assert (await world.ask(answer["access_token"], ME))["me"]["wallets"][0]["available"] == 30
    told = await world.http.post("/oauth/introspect", data={"token": answer["access_token"]}, auth=world.clients["fuel"])
    fuel = (await world.sql("select partner_id from partner where code = 'fuel'"))[0][0]
    assert told.json()["act"] == {"sub": str(fuel)}
    # Neither what was not agreed to, nor what is the member's own, nor what the partner's other tokens open.
    gift = "mutation($i: TransferPointsInput!) { transferPoints(input: $i) { errors { code } } }"
    assert (await world.post(answer["access_token"], gift, i={})).status_code in (400, 403)
    for query in ("{ partner { code } }", "{ me { cards { number } consents { id } } memberships(first: 1) { nodes { id } } }"):
        assert (await world.post(answer["access_token"], query)).status_code == 403
    narrow = (await exchange(world, await ann_hands_over(world, "balance:read", "profile:read"), scope="profile:read")).json()
    assert narrow["scope"] == "profile:read"
    log = await world.sql("select actor_id, action, result from audit_log where actor_kind = 'partner' order by number")
    assert {r["actor_id"] for r in log} == {fuel}
    assert [(r["action"], r["result"]) for r in log] == [
        ("query me", "ok"), ("mutation transferPoints", "FORBIDDEN"), ("query partner", "FORBIDDEN"), ("query me memberships", "FORBIDDEN"),
    ]  # fmt: skip


async def test_without_a_living_consent_or_with_another_token_nothing_is_exchanged(world: World) -> None:
    ann = await ann_hands_over(world, "profile:read")
    assert (await exchange(world, ann)).json()["error"] == "invalid_grant"
    await agree(world, "profile:read")
    assert (await exchange(world, ann, who="grocer")).json()["error"] == "invalid_grant"
    assert (await exchange(world, ann, scope="points:transfer")).json()["error"] == "invalid_scope"
    assert (await exchange(world, await world.token("grocer"))).json()["error"] == "invalid_grant"
    assert (await exchange(world, await world.operator())).json()["error"] == "invalid_grant"
    assert (await exchange(world, "nonsense")).json()["error"] == "invalid_grant"
    acting = (await exchange(world, ann)).json()["access_token"]
    assert (await exchange(world, acting)).json()["error"] == "invalid_grant"
    assert (await exchange(world, ann, actor_token=acting)).json()["error"] == "invalid_request"
    assert (await exchange(world, ann, subject_token_type="urn:x")).json()["error"] == "invalid_request"
    assert (await exchange(world, ann, resource="https://elsewhere.example")).json()["error"] == "invalid_target"
    assert (await exchange(world, ann, resource=f"{world.url}/graphql")).status_code == 200
    wide = await exchange(world, await ann_logs_in(world))
    assert (wide.status_code, wide.json()["error"]) == (400, "invalid_request")
    assert "scope=profile:read" in wide.json()["error_description"]
    public = await world.http.post(
        "/oauth/token",
        data={"grant_type": EXCHANGE, "client_id": "member-app", "subject_token": ann, "subject_token_type": ACCESS_TOKEN_TYPE},
    )
    assert public.status_code in (400, 401)


async def test_an_exchanged_token_never_lives_longer_than_the_members_own(world: World) -> None:
    await agree(world, "profile:read")
    ann = await ann_hands_over(world, "profile:read")
    world.clock.set(world.clock.now() + timedelta(minutes=4))
    answer = (await exchange(world, ann)).json()
    assert answer["expires_in"] == 60
    world.clock.set(world.clock.now() + timedelta(seconds=61))
    assert (await world.post(answer["access_token"], "{ me { id } }")).status_code == 401


async def test_withdrawing_a_consent_ends_its_tokens_and_gives_no_new_ones(world: World) -> None:
    consent = await agree(world, "profile:read")
    ann, handed = await ann_logs_in(world), await ann_hands_over(world, "profile:read")
    acting = (await exchange(world, handed)).json()["access_token"]
    assert (await world.post(acting, "{ me { id } }")).status_code == 200
    ended = (await world.ask(ann, WITHDRAW, i={"consent": consent}))["withdrawConsent"]
    assert ended["consent"]["withdrawnAt"]
    assert (await exchange(world, handed)).json()["error"] == "invalid_grant"
    await until_revoked(world, acting)
    assert (await world.post(ann, "{ me { id } }")).status_code == 200
    listed = (await world.ask(ann, "{ me { consents { id withdrawnAt purpose noticeVersion partner { code } } } }"))["me"]["consents"]
    assert [(each["id"], bool(each["withdrawnAt"])) for each in listed] == [(consent, True)]


async def test_nobody_ends_or_gives_a_consent_of_somebody_else(world: World) -> None:
    consent = await agree(world, "profile:read")
    acting = (await exchange(world, await ann_hands_over(world, "profile:read"))).json()["access_token"]
    for who in ("fuel", acting, await world.operator()):
        assert (await world.post(who, WITHDRAW, i={"consent": consent})).status_code == 403
        assert (await world.post(who, GRANT, i={"partner": "fuel", "purpose": "x"})).status_code == 403
    assert (await world.sql("select count(*) from consent where withdrawn_at is null"))[0][0] == 1
    given = {"partner": "fuel", "purpose": "x", "scopes": ["consents:manage"]}
    refused = (await world.ask(await ann_logs_in(world), GRANT, i=given))["grantConsent"]
    assert codes(refused) == ["INPUT_NOT_ACCEPTED"]


async def test_a_partner_that_acts_sees_neither_the_person_without_contact_nor_consents_of_others(world: World) -> None:
    ann = await ann_logs_in(world)
    await world.ask(ann, PERSON, i={"name": "Ann", "email": "ann@example.org"})
    await agree(world, "profile:read", partner="grocer")
    await agree(world, "profile:read")
    acting = (await exchange(world, await ann_hands_over(world, "profile:read"))).json()["access_token"]
    seen = (await world.ask(acting, "{ me { person { email } memberships { person { email } } consents { partner { code } } } }"))["me"]
    assert seen["person"] is None
    assert all(each["person"] is None for each in seen["memberships"])
    assert [each["partner"]["code"] for each in seen["consents"]] == ["fuel"]
    await agree(world, "profile:read", data_classes=("contact",))
    acting = (await exchange(world, await ann_hands_over(world, "profile:read"))).json()["access_token"]
    assert (await world.ask(acting, "{ me { person { email } } }"))["me"]["person"] == {"email": "ann@example.org"}


async def test_an_exchanged_token_ends_with_the_token_it_came_from(world: World) -> None:
    await agree(world, "profile:read")
    ann = await ann_hands_over(world, "profile:read")
    acting = (await exchange(world, ann)).json()["access_token"]
    revoked = await world.http.post("/oauth/revoke", data={"client_id": "member-app", "token": ann})
    assert revoked.status_code == 200
    await until_revoked(world, acting)


async def test_nothing_is_exchanged_for_a_token_that_was_revoked_a_moment_ago(world: World) -> None:
    await agree(world, "profile:read")
    ann = await ann_hands_over(world, "profile:read")
    # Written past this process, which reads what was revoked once a second: it cannot know yet.
    for mark in (f"jti:{said_by(ann)['jti']}", f"sid:{said_by(ann)['sid']}", f"sub:{said_by(ann)['sub']}"):
        now = world.clock.now()
        await world.sql("insert into revocation values ($1, $2, $3)", mark, now, now + timedelta(minutes=10))
        refused = await exchange(world, ann)
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant"), mark
        await world.sql("delete from revocation")


async def test_what_is_begun_after_a_login_has_ended_ends_with_it(world: World) -> None:
    await agree(world, "profile:read")
    ann = await ann_hands_over(world, "profile:read")
    now = world.clock.now()
    world.clock.set(now + timedelta(seconds=5))
    acting = (await exchange(world, ann)).json()["access_token"]
    # The login ended before the exchange, by another process's clock or a commit that took its time.
    await world.sql("insert into revocation values ($1, $2, $3)", f"sid:{said_by(ann)['sid']}", now, now + timedelta(minutes=10))
    await until_revoked(world, acting)


async def test_the_same_consent_given_again_is_one_and_another_for_the_same_purpose_takes_its_place(world: World) -> None:
    first = await agree(world, "balance:read", "profile:read")
    assert await agree(world, "balance:read", "profile:read") == first
    wide = (await exchange(world, await ann_hands_over(world, "balance:read", "profile:read"))).json()["access_token"]
    narrow = await agree(world, "profile:read")
    await until_revoked(world, wide)
    assert (await exchange(world, await ann_hands_over(world, "profile:read"))).json()["scope"] == "profile:read"
    await world.ask(await ann_logs_in(world), WITHDRAW, i={"consent": narrow})
    assert (await exchange(world, await ann_hands_over(world, "profile:read"))).json()["error"] == "invalid_grant"  # none stands behind it


async def test_of_consents_that_are_given_at_the_same_moment_one_stands(world: World) -> None:
    ann = await ann_logs_in(world)
    await agree(world, "profile:read", purpose="pay at the pump")
    scopes = (["profile:read"], ["balance:read"], ["balance:read", "profile:read"])
    given = [{"partner": "fuel", "purpose": "pay at the pump", "scopes": each, "dataClasses": []} for each in (*scopes, *scopes)]
    answers = await asyncio.gather(*(world.ask(ann, GRANT, i=each) for each in given))
    assert [each["grantConsent"]["errors"] for each in answers] == [[]] * 6
    standing = await world.sql("select consent_id from consent where withdrawn_at is null")
    assert len(standing) == 1


async def test_an_exchanged_token_ends_with_the_login_it_came_from(world: World) -> None:
    await agree(world, "profile:read")
    ann = await ann_hands_over(world, "profile:read")
    acting = (await exchange(world, ann)).json()["access_token"]
    family = said_by(ann)["sid"]
    assert said_by(acting)["sid"] == family
    now = world.clock.now()
    await world.sql("insert into revocation values ($1, $2, $3)", f"sid:{family}", now, now + timedelta(minutes=10))
    await until_revoked(world, acting)


async def test_what_a_partner_follows_in_a_members_name_ends_when_it_is_suspended(world: World) -> None:
    await agree(world, "balance:read", "profile:read")
    acting = (await exchange(world, await ann_hands_over(world, "balance:read", "profile:read"))).json()["access_token"]
    headers = {"Authorization": f"Bearer {acting}", "Accept": "text/event-stream"}
    async with world.http.stream("POST", "/graphql", json={"query": FOLLOW}, headers=headers) as answer:
        lines = answer.aiter_lines()
        said = [await anext(lines) for _ in range(4)]
        assert said[2] == "event: next"
        await world.sql("update partner set status = 'suspended' where code = 'fuel'")
        async with asyncio.timeout(10):
            rest = [line async for line in lines]
    assert "UNAUTHENTICATED" in " ".join(rest)
    assert (await world.post(acting, "{ me { wallets { available } } }")).status_code == 403


async def test_a_token_that_is_bound_to_its_apps_key_is_not_exchanged(world: World) -> None:
    await ann_logs_in(world)
    await agree(world, "profile:read")
    key = ECKey.generate_key("P-256")
    where = "com.example.loyalty:/callback"
    query, verifier = authorization(world, client_id="member-app", redirect_uri=where, scope="profile:read")
    answer = await world.http.post("/oauth/authorize", params=query, data={"login": "ann", "password": "ann's password"})
    code = parse_qs(urlparse(answer.headers["location"]).query)["code"][0]
    form = {"grant_type": "authorization_code", "client_id": "member-app", "code": code, "redirect_uri": where, "code_verifier": verifier}
    shown = proof(key, f"{world.url}/oauth/token")
    bound = (await world.http.post("/oauth/token", data=form, headers={"DPoP": shown})).json()
    assert bound["token_type"] == "DPoP"
    assert (await exchange(world, bound["access_token"])).json()["error"] == "invalid_grant"


async def test_a_consent_is_kept_with_what_it_was_for_how_it_was_said_and_how_it_was_given(world: World) -> None:
    await client_with_page(world)
    await ann_logs_in(world)
    await ask_on_the_page(world, login="ann", password="ann's password", decision="allow")
    await agree(world, "profile:read", partner="grocer", purpose="to send you news")
    listed = (await world.ask(await ann_logs_in(world), "{ me { consents { purpose noticeVersion partner { code } } } }"))["me"]["consents"]
    assert {each["partner"]["code"]: each["purpose"] for each in listed} == {"grocer": "to send you news", "fuel": "to show your points at the pump"}
    assert {each["noticeVersion"] for each in listed} == {NOTICE_VERSION}
    kept = {row["purpose"]: json.loads(row["evidence"]) for row in await world.sql("select purpose, evidence::text from consent")}
    page = kept["to show your points at the pump"]
    assert (page["given"], page["client"]) == ("on the consent page", "partner-fuel")
    assert set(kept["to send you news"]) >= {"given", "client"}


async def test_of_two_consents_the_one_counts_that_covers_what_is_handed_over(world: World) -> None:
    await agree(world, "balance:read", purpose="to show your points")
    await agree(world, "profile:read", purpose="to greet you")
    for scope in ("balance:read", "profile:read"):
        answer = await exchange(world, await ann_hands_over(world, scope))
        assert (answer.status_code, answer.json().get("scope")) == (200, scope)
    both = await exchange(world, await ann_hands_over(world, "balance:read", "profile:read"))
    assert both.json()["error"] == "invalid_request"


async def test_so_many_consents_stand_at_once_and_of_those_withdrawn_so_many_are_listed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consents, "STANDING_MAX", 3)
    monkeypatch.setattr(consents, "WITHDRAWN_MAX", 2)
    given = [await agree(world, "profile:read", purpose=f"purpose {n}") for n in range(3)]
    ann = await ann_logs_in(world)
    one_more = {"partner": "fuel", "purpose": "one more", "scopes": ["profile:read"]}
    assert codes((await world.ask(ann, GRANT, i=one_more))["grantConsent"]) == ["STATE_CONFLICT"]
    client = await client_with_page(world)
    page, _ = await ask_on_the_page(world, login="ann", password="ann's password", decision="allow")
    assert (page.status_code, "withdraw one first" in page.text, "location" in page.headers) == (409, True, False)
    assert client
    # One that stands is given again; and one is given for each that is withdrawn.
    assert await agree(world, "profile:read", purpose="purpose 1") == given[1]
    for n in range(3):
        await world.ask(ann, WITHDRAW, i={"consent": given.pop(0)})
        world.clock.set(world.clock.now() + timedelta(seconds=1))
        given.append(await agree(world, "profile:read", purpose=f"another {n}"))
    listed = (await world.ask(ann, "{ me { consents { id withdrawnAt } } }"))["me"]["consents"]
    assert [each["id"] for each in listed if not each["withdrawnAt"]] == given[::-1]
    assert len(listed) == 3 + 2
    assert len(await world.sql("select from consent")) == 6
