"""Operators: roles, a second factor, a recent login for what matters, and a log of what they did."""

import contextlib
import re
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlparse

import httpx
import pytest

from gateway.clock import SystemClock
from gateway.database import Database
from gateway.refusals import InputNotAccepted
from tests.access.test_oauth import authorization, olga, worded
from tests.founding import OPERATOR_PASSWORD
from tests.house.test_embedded import Gateway
from tests.points import ADJUST, APPROVE, ann_logs_in, codes, second_operator
from tests.world import World, log_in

STEPPED_UP = {
    "rejectAdjustment": "DecideAdjustmentInput", "onboardPartner": "OnboardPartnerInput", "publishContract": "PublishContractInput",
    "publishConversionRate": "PublishRateInput", "createProgramme": "CreateProgrammeInput",
    "setProgrammeTerms": "SetProgrammeTermsInput", "setPartnerCredit": "SetPartnerCreditInput",
    "recordPartnerPayment": "RecordPartnerPaymentInput", "expirePoints": "ExpirePointsInput",
}  # fmt: skip
CLOSE = "mutation($i: ClosePeriodInput!) { closePeriod(input: $i) { errors { code } } }"


async def attempt(world: World, form: dict[str, str]) -> httpx.Response:
    query, _ = authorization(world)
    return await world.http.post("/oauth/authorize", params=query, data=form)


async def test_a_second_factor_is_asked_for_and_each_code_serves_once(world: World) -> None:
    form = olga(world)
    for wrong in ("", "000000", "é12345"):
        assert (await attempt(world, {**form, "code": wrong})).status_code == 401
    assert (await attempt(world, form)).status_code == 303
    world.http.cookies.clear()
    assert (await attempt(world, form)).status_code == 401
    world.clock.set(world.clock.now() + timedelta(seconds=30))
    assert (await attempt(world, olga(world))).status_code == 303
    assert (await world.sql("select count(*) from authorization_code"))[0][0] == 2


async def test_a_secret_of_a_second_factor_cannot_be_read_in_the_database(world: World) -> None:
    kept = (await world.sql("select second_factor from account where login = 'olga'"))[0][0]
    assert world.factors["olga"].encode() not in kept


async def test_an_operator_without_a_second_factor_does_not_log_in_and_is_told_as_little_as_anybody(world: World) -> None:
    await world.new_operator("weak", ["admin"], factor=False)
    answers = []
    for login, password in (("weak", OPERATOR_PASSWORD), ("weak", "a wrong password"), ("nobody", OPERATOR_PASSWORD)):
        for code in ("", "000000"):
            answer = await attempt(world, {"login": login, "password": password, "code": code})
            answers.append((answer.status_code, worded(answer, login)))
    assert len(set(answers)) == 1
    assert answers[0][0] == 401
    assert (await world.sql("select count(*) from authorization_code"))[0][0] == 0


async def test_what_closes_approves_and_adjusts_needs_two_factors_not_long_ago(world: World) -> None:
    await world.operator()
    world.clock.set(world.clock.now() + timedelta(minutes=16))
    weak = await console_token(world, session_of(world))
    adjust = {"idempotencyKey": "a", "member": "mem_x", "programme": "MER", "partner": "grocer", "points": 5, "reason": "sorry"}
    asked: list[tuple[str, Any]] = [(CLOSE, {"month": "2026-09"}), (ADJUST, adjust), (APPROVE, {"adjustment": "adj_x"})]
    for name, kind in STEPPED_UP.items():
        asked.append((f"mutation($i: {kind}!) {{ {name}(input: $i) {{ errors {{ code }} }} }}", {}))
    for query, given in asked:
        answer = await world.post(weak, query, i=given)
        assert answer.status_code == 401
        assert answer.json()["errors"][0]["extensions"]["code"] == "STEP_UP_NEEDED"
        challenge = answer.headers["www-authenticate"]
        assert "insufficient_user_authentication" in challenge
        assert 'max_age="900"' in challenge
    assert (await world.ask(weak, "{ partners(first: 1) { nodes { code } } }"))["partners"]["nodes"]
    world.http.cookies.clear()
    strong = await log_in(world, "console", f"{world.url}/graphiql", "olga", OPERATOR_PASSWORD)
    assert (await world.post(strong, CLOSE, i={"month": "2026-01"})).status_code == 200
    assert await world.transactions() == 0


async def test_a_login_with_two_factors_wears_off(world: World) -> None:
    await world.operator()
    for minutes in (14, 16):
        world.clock.set(world.clock.now() + timedelta(minutes=minutes))
        query, _ = authorization(world, max_age="900")
        answer = await world.http.get("/oauth/authorize", params=query, headers={"cookie": session_of(world)})
        # The console asks for a login that is younger than a quarter of an hour: the session alone serves only before that.
        assert answer.status_code == (303 if minutes == 14 else 200)


async def console_token(world: World, session: str) -> str:
    """A token by the console's session alone, without its form."""
    query, verifier = authorization(world)
    answer = await world.http.get("/oauth/authorize", params=query, headers={"cookie": session})
    assert answer.status_code == 303, answer.text
    landed = parse_qs(urlparse(answer.headers["location"]).query)
    form = {"grant_type": "authorization_code", "client_id": "console", "redirect_uri": query["redirect_uri"]}
    given = await world.http.post("/oauth/token", data={**form, "code": landed["code"][0], "code_verifier": verifier})
    token: str = given.json()["access_token"]
    return token


def session_of(world: World) -> str:
    """The cookie that a browser would send; httpx keeps it to itself, as the test's address is not https."""
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in world.http.cookies.jar)


async def test_the_sessions_cookie_is_this_hosts_alone(world: World) -> None:
    answer = await attempt(world, olga(world))
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-gateway_console=")
    for attribute in ("Path=/", "Secure", "HttpOnly", "SameSite=strict"):
        assert attribute.lower() in cookie.lower()
    assert "domain" not in cookie.lower()
    # GraphQL takes no cookies: another site's form gets nowhere.
    asked = await world.http.post("/graphql", json={"query": "{ partners(first: 1) { nodes { id } } }"}, headers={"cookie": cookie.split(";")[0]})
    assert asked.status_code == 401


@pytest.mark.parametrize(
    ("role", "can", "cannot"),
    [
        ("support", "{ memberByCard(card: \"CARD-1\") { id } }", CLOSE),
        ("finance", '{ period(month: "2026-09") { month } }', "{ memberByCard(card: \"CARD-1\") { id } }"),
        ("onboarding", "{ partners(first: 1) { nodes { code } } }", "{ audit(first: 1) { nodes { number } } }"),
        ("auditor", "{ audit(first: 1) { nodes { number } } }", ADJUST),
    ],
)
async def test_a_role_opens_its_own_fields_and_no_others(world: World, role: str, can: str, cannot: str) -> None:
    await world.new_operator(role, [role])
    world.http.cookies.clear()
    token = await log_in(world, "console", f"{world.url}/graphiql", role, OPERATOR_PASSWORD)
    assert "errors" not in (await world.post(token, can)).json()
    assert (await world.post(token, cannot, i={})).status_code in (400, 403)
    scoped = (await world.post(token, cannot)).json()
    assert "data" not in scoped or scoped["data"] is None


async def test_a_new_password_leaves_an_operator_its_roles(world: World) -> None:
    await world.new_operator("aud", ["auditor"])
    await world.new_operator("aud", [])
    await world.new_operator("first", [])
    rows = await world.sql("select login, roles from account where login in ('aud', 'first') order by login")
    assert [(row["login"], row["roles"]) for row in rows] == [("aud", ["auditor"]), ("first", ["admin"])]


async def test_one_person_with_two_clients_is_one_person(world: World) -> None:
    await world.record("5000.00")
    member = (await world.ask(await world.operator(), '{ memberByCard(card: "CARD-1") { id } }'))["memberByCard"]["id"]
    given = {"idempotencyKey": "a", "member": member, "programme": "MER", "partner": "grocer", "points": 2000, "reason": "sorry"}
    asked = (await world.ask(await world.operator(), ADJUST, i=given))["adjustPoints"]["adjustment"]
    await world.sql("insert into oauth_client (client_id, name, redirect_uris, grants, scopes, created_at) select 'console-2', name, redirect_uris, grants, scopes, created_at from oauth_client where client_id = 'console'")
    world.clock.set(world.clock.now() + timedelta(seconds=30))
    other = await log_in(world, "console-2", f"{world.url}/graphiql", "olga", OPERATOR_PASSWORD)
    refused = (await world.ask(other, APPROVE, i={"adjustment": asked["id"]}))["approveAdjustment"]
    assert codes(refused) == ["NOT_ALLOWED"]
    assert await world.available() == 5000
    assert codes((await world.ask(await second_operator(world), APPROVE, i={"adjustment": asked["id"]}))["approveAdjustment"]) == []
    assert await world.available() == 7000


async def test_a_role_that_may_not_look_at_members_does_not_learn_which_there_are(world: World) -> None:
    ann = (await world.ask(await world.operator(), '{ memberByCard(card: "CARD-1") { id } }'))["memberByCard"]["id"]
    await world.new_operator("fin", ["finance"])
    world.http.cookies.clear()
    fin = await log_in(world, "console", f"{world.url}/graphiql", "fin", OPERATOR_PASSWORD)
    found = "query($i: ID!) { node(id: $i) { __typename id } }"
    assert (await world.ask(fin, found, i=ann))["node"] is None
    assert (await world.ask(await world.operator(), found, i=ann))["node"] == {"__typename": "Member", "id": ann}
    entity = "query($r: [_Any!]!) { _entities(representations: $r) { __typename } }"
    assert (await world.ask(fin, entity, r=[{"__typename": "Member", "id": ann}]))["_entities"] == [None]


async def test_a_form_that_another_sites_page_sends_logs_nobody_in(world: World) -> None:
    query, _ = authorization(world)
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
        answer = await world.http.post("/oauth/authorize", params=query, data=olga(world), headers=headers)
        assert answer.status_code == 400, headers
        assert "set-cookie" not in answer.headers
    assert (await world.sql("select count(*) from authorization_code"))[0][0] == 0
    own = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}
    assert (await world.http.post("/oauth/authorize", params=query, data=olga(world), headers=own)).status_code == 303
    long = await world.http.post("/oauth/authorize", params=query, data={"login": "x" * 201, "password": "x"})
    assert long.status_code == 400


async def test_an_app_that_asks_for_nothing_in_particular_is_shown_with_all_that_it_gets(world: World) -> None:
    query, _ = authorization(world, client_id="member-app", redirect_uri="com.example.loyalty:/callback")
    page = (await world.http.get("/oauth/authorize", params=query)).text
    assert "give your points to other members" in page
    narrow = (await world.http.get("/oauth/authorize", params={**query, "scope": "profile:read"})).text
    assert "give your points to other members" not in narrow


async def test_the_consoles_session_serves_the_console_alone_until_it_ends(world: World) -> None:
    await world.operator()
    session = {"cookie": session_of(world)}

    async def status(**changes: str) -> int:
        query, _ = authorization(world, **changes)
        return (await world.http.get("/oauth/authorize", params=query, headers=session)).status_code

    assert await status() == 303
    app = {"client_id": "member-app", "redirect_uri": "com.example.loyalty:/callback"}
    assert await status(**app) == 200
    assert await status(prompt="login") == 200
    assert [await status(max_age=age) for age in ("60", "-1", "1.5", "²")] == [303, 200, 200, 200]
    world.clock.set(world.clock.now() + timedelta(hours=7, minutes=59))
    assert await status() == 303
    world.clock.set(world.clock.now() + timedelta(minutes=2))
    assert await status() == 200


async def test_no_cookie_but_the_sessions_is_read_however_it_is_quoted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own reading of quoted cookies takes seconds for a header of 60 KB (CVE-2024-7592)."""
    await world.operator()
    read: list[str] = []
    monkeypatch.setattr("http.cookies._unquote", lambda text: read.append(text) or text)
    quoted = 'a="' + "\\\\" * 25_000 + '"'
    query, _ = authorization(world)
    with_session = {"cookie": f"{quoted}; {session_of(world)}; b=c"}
    assert (await world.http.get("/oauth/authorize", params=query, headers=with_session)).status_code == 303
    assert (await world.http.get("/oauth/authorize", params=query, headers={"cookie": quoted})).status_code == 200
    real = session_of(world).encode()
    # Names that any site beside this one may set, and two of one name, of which one must be another's.
    planted = [b"\x85" + real, b"\xa0" + real, real + b"; " + real, real + b"; __Host-gateway_console=x", real + b";" * 201]
    for odd in (b'__Host-gateway_console="x"', b"__Host-gateway_console=", b"__Host-gateway_console=\xc3\xa9", b";;=;", *planted):
        assert (await world.http.get("/oauth/authorize", params=query, headers={"cookie": odd})).status_code == 200, odd
    assert (await world.http.post("/oauth/logout", headers=with_session)).status_code == 204
    assert await world.sql("select from console_session") == []
    assert read == []


async def test_another_sites_or_ports_page_logs_nobody_out_and_it_and_a_head_get_no_code(world: World) -> None:
    await world.operator()
    session = {"cookie": session_of(world)}
    query, _ = authorization(world)
    left = "select (select count(*) from authorization_code), (select count(*) from audit_log), (select count(*) from budget)"
    before = await world.sql(left)
    for site in ("cross-site", "same-site"):
        elsewhere = {**session, "sec-fetch-site": site}
        assert "set-cookie" not in (await world.http.post("/oauth/logout", headers=elsewhere)).headers
        shown = await world.http.get("/oauth/authorize", params=query, headers=elsewhere)
        assert (shown.status_code, "set-cookie" in shown.headers) == (200, False)
    assert await world.sql(left) == before
    codes = await world.sql("select count(*) from authorization_code")
    head = await world.http.head("/oauth/authorize", params=query, headers=session)
    assert (head.status_code, head.headers["allow"]) == (405, "GET, POST")
    assert await world.sql("select count(*) from authorization_code") == codes
    assert (await world.http.get("/oauth/authorize", params=query, headers=session)).status_code == 303
    out = await world.http.post("/oauth/logout", headers=session)
    assert "Max-Age=0" in out.headers["set-cookie"]
    assert (await world.http.get("/oauth/authorize", params=query, headers=session)).status_code == 200


async def test_a_new_second_factor_ends_every_session_and_token(world: World) -> None:
    token = await world.operator()
    session = session_of(world)
    gateway = Gateway(world.data_dir)
    gateway.environment |= {"DATABASE_URL": world.dsn}
    world.clock.set(SystemClock().now())
    ran = gateway.run("operator", "factor", "olga")
    assert ran.stdout.startswith("otpauth://totp/")
    assert await world.sql("select from console_session") == []
    query, _ = authorization(world)
    assert (await world.http.get("/oauth/authorize", params=query, headers={"cookie": session})).status_code == 200
    assert (await attempt(world, olga(world))).status_code == 401  # a code of the factor before
    assert (await world.post(token, "{ partners(first: 1) { nodes { id } } }")).status_code == 401


@pytest.mark.parametrize(("password", "made"), [("123456789", False), ("1234567890", True)])
async def test_a_password_has_ten_characters_at_least(world: World, password: str, made: bool) -> None:
    with contextlib.nullcontext() if made else pytest.raises(InputNotAccepted):
        await world.set_password("new", password)
    kept = await world.sql("select password_hash from account where login = 'new'")
    assert len(kept) == made
    # What OWASP asks of argon2id at least: 19 MiB, two passes.
    assert all(re.match(r"\$argon2id\$v=19\$m=19456,t=2,p=1\$", row["password_hash"]) for row in kept)


async def test_a_login_from_before_names_were_blinded_serves_as_before_and_a_members_name_is_kept_no_more(world: World) -> None:
    token = await ann_logs_in(world)
    names = "update account set login_hash = null, login = case when kind = 'member' then 'ann' else login end"
    await world.sql(names)
    database = Database(world.dsn, 1)
    await database.open()
    await world.vault(database)
    rows = "select login, login_hash is not null as found from account order by kind, login desc"
    assert [tuple(row) for row in await world.sql(rows)] == [(None, True), ("olga", True)]
    # A process of the version before may make another account of that name: the first one is found, and gateways start.
    await world.sql(
        "insert into account (account_id, kind, login, password_hash, member_id, roles, created_at)"
        " select gen_random_uuid(), kind, 'ann', 'x', member_id, roles, now() from account where kind = 'member'"
    )
    await world.vault(database)
    await database.close()
    assert [tuple(row) for row in await world.sql(rows)] == [(None, True), ("ann", False), ("olga", True)]
    again = await log_in(world, "member-app", "com.example.loyalty:/callback", "ann", "ann's password")
    assert (await world.ask(again, "{ me { id } }")) == (await world.ask(token, "{ me { id } }"))
    assert (await attempt(world, olga(world))).status_code == 303
