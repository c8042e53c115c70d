"""The authorization server over real sockets: what it gives, and what it refuses."""

import asyncio
import base64
import hashlib
import re
import secrets
from datetime import timedelta
from urllib.parse import parse_qs, urlparse

import httpx
import orjson
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from gateway import ids
from tests.founding import OPERATOR_PASSWORD
from tests.world import RECORD, World, log_in

ME = "{ partner { code } }"


async def ask_token(world: World, data: dict[str, str], **options: object) -> httpx.Response:
    return await world.http.post("/oauth/token", data=data, **options)  # type: ignore[arg-type]


async def test_basic_and_post_both_get_a_token_of_five_minutes(world: World) -> None:
    client_id, secret = world.clients["grocer"]
    grant = {"grant_type": "client_credentials"}
    basic = await ask_token(world, grant, auth=(client_id, secret))
    posted = await ask_token(world, {**grant, "client_id": client_id, "client_secret": secret})
    keys = KeySet.import_key_set((await world.http.get("/oauth/jwks")).json())
    for answer in (basic, posted):
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        body = answer.json()
        assert (body["token_type"], body["expires_in"]) == ("Bearer", 300)
        token = jwt.decode(body["access_token"], keys, algorithms=["ES256"])
        assert token.header["typ"] == "at+jwt"
        assert (token.claims["iss"], token.claims["aud"]) == (world.url, f"{world.url}/graphql")
        assert token.claims["exp"] - token.claims["iat"] == 300
        assert (await world.ask(body["access_token"], ME))["partner"]["code"] == "grocer"


async def test_metadata_and_keys_hold_no_private_part(world: World) -> None:
    metadata = (await world.http.get("/.well-known/oauth-authorization-server")).json()
    assert metadata["issuer"] == world.url
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    keys = (await world.http.get(urlparse(metadata["jwks_uri"]).path)).json()["keys"]
    assert keys
    assert all("d" not in key for key in keys)


async def test_an_unknown_client_and_a_wrong_secret_get_the_same_answer(world: World) -> None:
    grant = {"grant_type": "client_credentials"}
    wrong = await ask_token(world, grant, auth=(world.clients["grocer"][0], "wrong"))
    unknown = await ask_token(world, grant, auth=("nobody", "wrong"))
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json() == unknown.json()
    assert wrong.json()["error"] == "invalid_client"
    assert "access_token" not in wrong.text


@pytest.mark.parametrize(
    "header", ["Basic ////", "Basic", "Basic %%%", "Bearer x", "Basic " + base64.b64encode(b"a\x00:b").decode()]
)
async def test_a_malformed_authorization_header_is_a_401(world: World, header: str) -> None:
    answer = await ask_token(world, {"grant_type": "client_credentials"}, headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.json()["error"] == "invalid_client"


@pytest.mark.parametrize(
    "body",
    [
        "grant_type=client_credentials&grant_type=client_credentials",
        "grant_type=client_credentials&client_id=a%00b&client_secret=x",
        "grant_type=password&username=a&password=b",
        "",
        "%ff%fe",
        "grant_type=authorization_code&code=x&client_id=console",
        "a=" + "x" * 20_000,
    ],
)
async def test_bad_token_requests_are_4xx_and_give_no_token(world: World, body: str) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await world.http.post("/oauth/token", content=body, headers=headers)
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]
    assert answer.json()["error_description"]
    assert "access_token" not in answer.text


async def test_two_ways_of_authentication_at_once_are_refused(world: World) -> None:
    client_id, secret = world.clients["fuel"]
    both = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
    answer = await ask_token(world, both, auth=world.clients["grocer"])
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_control_characters_at_the_login_are_refused(world: World) -> None:
    """On the page where a person typed or pasted them, in words; nothing else may hold any."""
    query, _ = authorization(world)
    for form in ({"login": "a\0"}, {"login": "olga\u200b"}, {"login": "olga", "code": "\0\ufeff"}):
        answer = await world.http.post("/oauth/authorize", params=query, data={"password": OPERATOR_PASSWORD, **form})
        assert (answer.status_code, "is wrong." in answer.text, "location" in answer.headers) == (401, True, False)
    assert (await world.http.post("/oauth/authorize", params=query, data={"login": "a", "password": "b", "told": "\0"})).status_code == 400


async def test_a_one_time_code_is_read_with_whatever_blanks_it_was_pasted_with(world: World) -> None:
    query, _ = authorization(world)
    code = world.code_of("olga")
    form = {"login": "olga", "password": OPERATOR_PASSWORD, "code": f"\u00a0{code[:3]}\u202f{code[3:]}\t"}
    assert (await world.http.post("/oauth/authorize", params=query, data=form)).status_code == 303


async def test_scopes_can_be_narrowed_and_not_widened(world: World) -> None:
    auth = world.clients["grocer"]
    narrow = (await ask_token(world, {"grant_type": "client_credentials", "scope": "partner"}, auth=auth)).json()
    assert narrow["scope"] == "partner"
    assert (await world.post(narrow["access_token"], "{ memberships(first: 1) { nodes { id } } }")).status_code == 403
    wide = await ask_token(world, {"grant_type": "client_credentials", "scope": "settlement:close"}, auth=auth)
    assert wide.status_code == 400
    assert wide.json()["error"] == "invalid_scope"


async def test_a_token_ends_after_five_minutes_also_when_it_was_seen_before(world: World) -> None:
    token = await world.token("grocer")
    assert (await world.post(token, ME)).status_code == 200
    world.clock.set(world.clock.now() + timedelta(seconds=300))
    answer = await world.post(token, ME)
    assert answer.status_code == 401
    assert "expired" in answer.json()["errors"][0]["message"]
    assert "data" not in answer.json()


async def test_a_forged_or_foreign_token_is_a_401(world: World) -> None:
    token = await world.token("grocer")
    head, payload, signature = token.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"at+jwt"}').rstrip(b"=").decode()
    for bad in (
        f"{head}.{payload}.{signature[:-4]}AAAA",
        f"{none}.{payload}.",
        "a.b.c",
        "x" * 9_000 + ".",
        f"{head}.{head}.{signature}",
    ):
        answer = await world.post(bad, ME)
        assert answer.status_code == 401
        assert "data" not in answer.json()


def authorization(world: World, **changes: str) -> tuple[dict[str, str], str]:
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    query = {
        "response_type": "code",
        "client_id": "console",
        "redirect_uri": f"{world.url}/graphiql",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "state": "s",
        **changes,
    }
    return {name: value for name, value in query.items() if value}, verifier


def olga(world: World) -> dict[str, str]:
    """The login form, as Olga fills it in."""
    return {"login": "olga", "password": OPERATOR_PASSWORD, "code": world.code_of("olga")}


def worded(answer: httpx.Response, login: str) -> str:
    """A page without what differs on purpose: the name that was typed, and its nonce."""
    return re.sub(r'nonce="[^"]+"', "", answer.text.replace(login, ""))


async def code(world: World) -> tuple[str, str]:
    query, verifier = authorization(world)
    answer = await world.http.post("/oauth/authorize", params=query, data=olga(world))
    return parse_qs(urlparse(answer.headers["location"]).query)["code"][0], verifier


def exchange(world: World, code: str, verifier: str, **changes: str) -> dict[str, str]:
    return {
        "grant_type": "authorization_code",
        "client_id": "console",
        "redirect_uri": f"{world.url}/graphiql",
        "code": code,
        "code_verifier": verifier,
        **changes,
    }


async def test_an_operator_logs_in_and_gets_no_members_or_partners_rights(world: World) -> None:
    token = await log_in(world, "console", f"{world.url}/graphiql", "olga", OPERATOR_PASSWORD)
    assert len((await world.ask(token, "{ partners(first: 9) { nodes { code } } }"))["partners"]["nodes"]) == 3
    assert (await world.post(token, "{ me { id } }")).status_code == 403
    assert (await world.post(token, ME)).status_code == 403


async def test_a_wrong_password_and_an_unknown_login_get_the_same_page_and_no_code(world: World) -> None:
    query, _ = authorization(world)
    pages = []
    for login in ("olga", "nobody"):
        answer = await world.http.post("/oauth/authorize", params=query, data={"login": login, "password": "wrong password"})
        assert answer.status_code == 401
        assert "location" not in answer.headers
        pages.append(worded(answer, login))
    assert pages[0] == pages[1]
    assert (await world.sql("select count(*) from authorization_code"))[0][0] == 0


async def test_after_five_wrong_passwords_a_login_is_locked_for_a_while_whether_it_is_known_or_not(world: World) -> None:
    query, _ = authorization(world)

    async def attempt(login: str, password: str) -> httpx.Response:
        form = {"login": login, "password": password, "code": world.code_of(login)}
        return await world.http.post("/oauth/authorize", params=query, data=form)

    pages: dict[str, list[tuple[int, str]]] = {}
    for login in ("olga", "nobody"):
        # At once, as somebody who guesses would: no try is counted less for it.
        answers = await asyncio.gather(*(attempt(login, f"guess {n}") for n in range(8)))
        pages[login] = sorted((answer.status_code, worded(answer, login)) for answer in answers)
        assert [status for status, _ in pages[login]] == [401] * 5 + [429] * 3
    assert pages["olga"] == pages["nobody"]
    locked = await attempt("olga", OPERATOR_PASSWORD)
    assert locked.status_code == 429
    assert "15 minutes" in locked.text
    world.clock.set(world.clock.now() + timedelta(minutes=15))
    assert (await attempt("olga", OPERATOR_PASSWORD)).status_code == 303


@pytest.mark.parametrize(
    "changes",
    [
        {"code_challenge_method": "plain"},
        {"code_challenge_method": ""},
        {"code_challenge": ""},
        {"redirect_uri": "https://evil.example/"},
        {"client_id": "nobody"},
        {"response_type": "token"},
    ],
)
async def test_authorization_without_s256_or_to_a_foreign_address_gives_no_code(world: World, changes: dict[str, str]) -> None:
    query, _ = authorization(world, **changes)
    answer = await world.http.post("/oauth/authorize", params=query, data=olga(world))
    assert "code=" not in answer.headers.get("location", "")
    assert "evil" not in answer.headers.get("location", "")
    assert answer.status_code in (303, 400)
    assert (await world.sql("select count(*) from authorization_code"))[0][0] == 0


async def test_a_code_serves_once_with_its_own_verifier_client_and_address(world: World) -> None:
    given, verifier = await code(world)
    for changes in (
        {"code_verifier": secrets.token_urlsafe(48)},
        {"code_verifier": ""},
        {"client_id": "member-app"},
        {"redirect_uri": "x"},
    ):
        assert (await ask_token(world, exchange(world, given, verifier, **changes))).status_code in (400, 401)
    assert (await ask_token(world, exchange(world, given, verifier))).status_code == 200
    again = await ask_token(world, exchange(world, given, verifier))
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")


async def test_a_code_ends_after_a_minute(world: World) -> None:
    given, verifier = await code(world)
    world.clock.set(world.clock.now() + timedelta(seconds=60))
    assert (await ask_token(world, exchange(world, given, verifier))).json()["error"] == "invalid_grant"


async def test_the_login_page_says_what_is_asked_and_cannot_be_framed(world: World) -> None:
    query, _ = authorization(world, scope="coalition:read", state='"><script>')
    answer = await world.http.get("/oauth/authorize", params=query)
    assert answer.status_code == 200
    assert "read partners, periods and positions" in answer.text
    assert "<script" not in answer.text
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


async def test_a_suspended_partner_gets_no_token_and_can_post_nothing(world: World) -> None:
    await world.token("grocer")
    await world.sql("update partner set status = 'suspended' where code = 'grocer'")
    refused = await ask_token(world, {"grant_type": "client_credentials"}, auth=world.clients["grocer"])
    assert refused.status_code == 401
    async with asyncio.timeout(5):
        while (answer := await world.post("grocer", "{ programmes { code } }")).status_code == 200:
            pass  # what this process knows of the coalition is at most a second old
    assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (403, "FORBIDDEN")
    membership = ids.show("mbs", (await world.sql("select membership_id from membership limit 1"))[0][0])
    looked = await world.post("grocer", "query($i: ID!) { node(id: $i) { id } }", i=membership)
    posted = await world.post("grocer", RECORD, input=world.purchase("10.00"))
    assert (looked.status_code, posted.status_code) == (403, 403)
    assert await world.transactions() == 0


STRANGE = (("response_type", "é"), ("response_type", 'a"b'), ("response_type", "a\\b"), ("redirect_uri", "https://x/é"), ("max_age", "²"))


async def test_strange_characters_at_the_login_are_no_error_of_ours(world: World) -> None:
    await log_in(world, "console", f"{world.url}/graphiql", "olga", OPERATOR_PASSWORD)
    for name, value in STRANGE:
        query, _ = authorization(world, **{name: value})
        answer = await world.http.get("/oauth/authorize", params=query)
        assert answer.status_code in (200, 303, 400)
        pushed = await world.http.post("/oauth/par", data=query)
        assert pushed.status_code == (201 if answer.status_code in (200, 303) else 400)
        assert ("error_description" in pushed.json()) == (pushed.status_code == 400)
    assert (await world.http.get("/oauth/authorize")).json()["error_description"] == "Ask with response_type=code."


async def test_nothing_is_kept_of_a_pushed_request_that_is_not_read(world: World) -> None:
    query, _ = authorization(world, login_hint="ann@example.org", nonce="n", state="s")
    pushed = await world.http.post("/oauth/par", data=query)
    assert pushed.status_code == 201
    ((kept,),) = await world.sql("select parameters::text from pushed_request")
    assert orjson.loads(kept) == {name: value for name, value in query.items() if name not in ("login_hint", "nonce")}
    named = {"client_id": query["client_id"], "request_uri": pushed.json()["request_uri"]}
    back = await world.http.post("/oauth/authorize", params=named, data=olga(world))
    assert parse_qs(urlparse(back.headers["location"]).query)["state"] == ["s"]


async def test_an_answer_that_is_wanted_elsewhere_than_in_the_query_is_refused(world: World) -> None:
    query, _ = authorization(world, response_mode="fragment")
    assert (await world.http.post("/oauth/par", data=query)).json()["error"] == "invalid_request"
    landed = (await world.http.get("/oauth/authorize", params=query)).headers["location"]
    assert parse_qs(urlparse(landed).query)["error"] == ["invalid_request"]
    query, _ = authorization(world, response_mode="query")
    assert (await world.http.post("/oauth/par", data=query)).status_code == 201
    assert len(await world.sql("select from pushed_request")) == 1


async def test_a_request_object_is_refused_instead_of_passed_over(world: World) -> None:
    query, _ = authorization(world, request="eyJhbGciOiJub25lIn0.e30.", state="s")
    pushed = await world.http.post("/oauth/par", data=query)
    answer = await world.http.get("/oauth/authorize", params=query)
    told = parse_qs(urlparse(answer.headers["location"]).query)
    assert (pushed.status_code, pushed.json()["error"]) == (400, "request_not_supported")
    assert (told["error"], told["state"]) == (["request_not_supported"], ["s"])
    assert "login" not in answer.text
    assert await world.sql("select from pushed_request") == []
