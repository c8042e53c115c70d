"""The consent page, and what a partner gets for a code that came from it."""

import asyncio
import re
from urllib.parse import parse_qs, urlparse

import pytest

from gateway.coalition import catalogue
from gateway.ids import read
from tests.access.consenting import (
    BACK,
    GRANT,
    ME,
    PERSON,
    WITHDRAW,
    agree,
    ask_on_the_page,
    client_with_page,
    person_seen_by_fuel,
    read_on,
)
from tests.access.test_oauth import authorization
from tests.points import ann_logs_in, until_revoked
from tests.world import World


async def test_the_consent_page_says_in_words_what_the_partner_will_see_and_do(world: World) -> None:
    await client_with_page(world)
    page, _ = await ask_on_the_page(world)
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.text))
    for said in ("The Fuel Station", "to show your points at the pump", "read your wallets", "your name, e-mail address and phone number", "end this at any time"):
        assert said in words
    assert "post purchases" not in words
    assert "script" not in page.text
    assert f"'nonce-{re.search(r'nonce=.([^>]+).>', page.text)[1]}'" in page.headers["content-security-policy"]  # type: ignore[index]


async def test_a_member_allows_it_on_the_page_and_the_partner_acts_and_refreshes_until_it_ends(world: World) -> None:
    await ann_logs_in(world)
    await world.ask(await ann_logs_in(world), PERSON, i={"name": "Ann", "email": "Ann@Example.org"})
    client = await client_with_page(world)
    assert (await person_seen_by_fuel(world)) is None
    answer, verifier = await ask_on_the_page(world, login="ann", password="ann's password", decision="allow")
    assert answer.status_code == 303
    landed = parse_qs(urlparse(answer.headers["location"]).query)
    form = {"grant_type": "authorization_code", "code": landed["code"][0], "redirect_uri": BACK, "code_verifier": verifier}
    tokens = (await world.http.post("/oauth/token", data=form, auth=client)).json()
    assert tokens["scope"] == "balance:read profile:read"
    assert (await world.post(tokens["access_token"], ME)).status_code == 200
    assert (await person_seen_by_fuel(world)) == {"name": "Ann", "email": "ann@example.org", "phone": None}
    refresh = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    for _ in range(3):
        again = (await world.http.post("/oauth/token", data=refresh, auth=client)).json()
        assert "refresh_token" not in again
        assert again["scope"] == "balance:read profile:read"
    assert (await world.http.post("/oauth/token", data=refresh, auth=world.clients["grocer"])).status_code == 400
    consent = (await world.ask(await ann_logs_in(world), "{ me { consents { id dataClasses scopes } } }"))["me"]["consents"][0]
    assert (consent["dataClasses"], consent["scopes"]) == (["contact"], ["balance:read", "profile:read"])
    await world.ask(await ann_logs_in(world), WITHDRAW, i={"consent": consent["id"]})
    assert (await world.http.post("/oauth/token", data=refresh, auth=client)).json()["error"] == "invalid_grant"
    await until_revoked(world, again["access_token"])
    assert (await person_seen_by_fuel(world)) is None


@pytest.mark.parametrize("form", [
    {"login": "ann", "password": "ann's password", "decision": "deny"},
    {"login": "", "password": "", "decision": "deny"},
])  # fmt: skip
async def test_who_does_not_allow_it_comes_back_with_access_denied(world: World, form: dict[str, str]) -> None:
    await ann_logs_in(world)
    await client_with_page(world)
    answer, _ = await ask_on_the_page(world, **form)
    assert answer.status_code == 303
    assert "error=access_denied" in answer.headers["location"]
    assert (await world.sql("select count(*) from consent"))[0][0] == 0


@pytest.mark.parametrize("change", [
    "update oauth_client set purpose = 'to sell what it knows of you' where client_id = 'partner-fuel'",
    "update partner set name = 'The Fuel Station and Friends' where code = 'fuel'",
])  # fmt: skip
async def test_nobody_agrees_to_what_its_page_did_not_say(world: World, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    monkeypatch.setattr(catalogue, "STALE_SECONDS", 0)
    await ann_logs_in(world)
    await client_with_page(world)
    query, _ = authorization(world, client_id="partner-fuel", redirect_uri=BACK, scope="balance:read")
    read = read_on(await world.http.get("/oauth/authorize", params=query))
    await world.sql(change)
    form = {"login": "ann", "password": "ann's password", "decision": "allow"}
    anew = await world.http.post("/oauth/authorize", params=query, data={**form, **read})
    assert (anew.status_code, "has changed since this page was opened" in anew.text) == (409, True)
    assert (await world.http.post("/oauth/authorize", params=query, data=form)).status_code == 409  # without having read any
    assert (await world.sql("select count(*) from consent"))[0][0] == 0
    agreed = await world.http.post("/oauth/authorize", params=query, data={**form, **read_on(anew)})
    assert agreed.status_code == 303
    assert len(await world.sql("select from consent")) == 1


async def test_an_operator_cannot_consent_in_its_own_name(world: World) -> None:
    await client_with_page(world)
    answer, _ = await ask_on_the_page(world, login="olga", password="correct horse battery", code=world.code_of("olga"), decision="allow")
    assert answer.status_code == 401
    assert (await world.sql("select count(*) from consent"))[0][0] == 0


async def test_another_consent_cannot_be_put_under_a_members_code_or_refresh_token(world: World) -> None:
    ann = await ann_logs_in(world)
    client = await client_with_page(world)
    answer, verifier = await ask_on_the_page(world, login="ann", password="ann's password", decision="allow")
    landed = parse_qs(urlparse(answer.headers["location"]).query)
    other = await agree(world, "points:convert", "balance:read", "profile:read")
    form = {
        "grant_type": "authorization_code", "code": landed["code"][0], "redirect_uri": BACK, "code_verifier": verifier,
        "subject_token": ann, "refresh_token": "gwr_x",
    }  # fmt: skip
    tokens = (await world.http.post("/oauth/token", data=form, auth=client)).json()
    on_the_page = next(
        each["id"] for each in (await world.ask(ann, "{ me { consents { id dataClasses } } }"))["me"]["consents"] if each["dataClasses"]
    )
    assert on_the_page != other
    await world.ask(ann, WITHDRAW, i={"consent": on_the_page})
    refresh = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], "subject_token": ann, "code": landed["code"][0]}
    assert (await world.http.post("/oauth/token", data=refresh, auth=client)).json()["error"] == "invalid_grant"
    await until_revoked(world, tokens["access_token"])


async def test_logins_on_the_page_and_consents_of_the_app_at_the_same_moment_all_succeed(world: World) -> None:
    ann = await ann_logs_in(world)
    await client_with_page(world)
    given = {"partner": "fuel", "purpose": "to show your points at the pump", "scopes": ["profile:read"], "dataClasses": []}
    form = {"login": "ann", "password": "ann's password"}
    pages = [ask_on_the_page(world, **form) for _ in range(4)]
    answers = await asyncio.gather(*pages, *(world.ask(ann, GRANT, i=given) for _ in range(4)))
    assert [page.status_code for page, _ in answers[:4]] == [303] * 4  # type: ignore[misc]
    assert [answer["grantConsent"]["errors"] for answer in answers[4:]] == [[]] * 4  # type: ignore[call-overload]
    assert len(await world.sql("select from consent where withdrawn_at is null")) == 1


async def test_a_suspended_partner_asks_nobody_for_consent(world: World) -> None:
    await ann_logs_in(world)
    await client_with_page(world)
    await world.sql("update partner set status = 'suspended' where code = 'fuel'")
    answer, _ = await ask_on_the_page(world, login="ann", password="ann's password", decision="allow")
    assert answer.status_code == 400
    assert (await world.sql("select count(*) from consent"))[0][0] == 0


async def test_a_partners_client_gets_nothing_without_its_secret(world: World) -> None:
    await ann_logs_in(world)
    client_id, secret = await client_with_page(world)
    answer, verifier = await ask_on_the_page(world, login="ann", password="ann's password", decision="allow")
    code = parse_qs(urlparse(answer.headers["location"]).query)["code"][0]
    redeem = {"grant_type": "authorization_code", "code": code, "redirect_uri": BACK, "code_verifier": verifier}
    public = {"client_id": client_id}
    assert (await world.http.post("/oauth/token", data={**redeem, **public})).status_code == 401
    tokens = (await world.http.post("/oauth/token", data=redeem, auth=(client_id, secret))).json()
    refresh = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    query, _ = authorization(world, client_id=client_id, redirect_uri=BACK)
    for path, form in (("token", {**refresh, **public}), ("revoke", {"token": tokens["refresh_token"], **public}), ("par", query)):
        refused = await world.http.post(f"/oauth/{path}", data=form)
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client"), path
    assert (await world.http.post("/oauth/token", data=refresh, auth=(client_id, secret))).status_code == 200


@pytest.mark.parametrize("uri", [f"{BACK}.evil", f"{BACK}/x", f"{BACK}?x=1", BACK.upper(), "https://fuel.example", "https://fuel.example/"])
async def test_a_code_goes_to_the_very_address_that_is_registered(world: World, uri: str) -> None:
    await client_with_page(world)
    query, _ = authorization(world, client_id="partner-fuel", redirect_uri=uri, scope="balance:read")
    answer = await world.http.get("/oauth/authorize", params=query)
    assert answer.status_code == 400
    assert "location" not in answer.headers


async def test_what_a_client_may_no_longer_do_serves_nothing_that_was_begun_before(world: World) -> None:
    await ann_logs_in(world)
    client = await client_with_page(world)
    codes, forms = [], []
    for _ in range(2):
        answer, verifier = await ask_on_the_page(world, login="ann", password="ann's password", decision="allow")
        codes.append(parse_qs(urlparse(answer.headers["location"]).query)["code"][0])
        forms.append({"grant_type": "authorization_code", "code": codes[-1], "redirect_uri": BACK, "code_verifier": verifier})
    tokens = (await world.http.post("/oauth/token", data=forms[0], auth=client)).json()
    before = await world.sql("select count(*) from refresh_token")
    # The page is another one by now: a code that went to the old one serves nobody.
    await world.sql("update oauth_client set redirect_uris = '{https://fuel.example/elsewhere}' where client_id = $1", client[0])
    late = await world.http.post("/oauth/token", data=forms[1], auth=client)
    assert (late.status_code, late.json()["error"]) == (400, "invalid_grant")
    await world.sql("update oauth_client set grants = array_remove(grants, 'refresh_token') where client_id = $1", client[0])
    told = await world.http.post("/oauth/introspect", data={"token": tokens["refresh_token"]}, auth=client)
    assert told.json() == {"active": False}
    refresh = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    assert (await world.http.post("/oauth/token", data=refresh, auth=client)).status_code == 400
    assert await world.sql("select count(*) from refresh_token") == before


async def test_a_code_or_token_under_a_consent_of_somebody_else_or_that_shrank_opens_no_more(world: World) -> None:
    """As if a row were changed behind the gateway's back: the consent is looked at each time, and whose it is."""
    await ann_logs_in(world)
    client = await client_with_page(world)
    answer, verifier = await ask_on_the_page(world, login="ann", password="ann's password", decision="allow")
    code = parse_qs(urlparse(answer.headers["location"]).query)["code"][0]
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": BACK, "code_verifier": verifier}
    tokens = (await world.http.post("/oauth/token", data=form, auth=client)).json()
    refresh = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    await world.sql("update consent set scopes = '{profile:read}'")
    assert (await world.http.post("/oauth/token", data=refresh, auth=client)).json()["scope"] == "profile:read"
    other = await agree(world, "balance:read", "profile:read", partner="grocer", purpose="for the grocer")
    await world.sql("update token_family set consent_id = $1 where consent_id is not null", read("cns", other))
    assert (await world.http.post("/oauth/token", data=refresh, auth=client)).json()["error"] == "invalid_grant"
