"""Partners that prove who they are with a key of their own, and whose tokens are bound to one (FAPI 2.0)."""

import base64
import hashlib
import hmac
import json
import secrets
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlparse

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.access import registration
from gateway.access.clients import ASSERTION_TYPE, JOSE
from gateway.access.dpop import BadProof, read_proof
from gateway.database import Database
from gateway.refusals import InputNotAccepted
from tests.access.consenting import read_on
from tests.access.test_clients import keyed_client
from tests.access.test_oauth import authorization
from tests.founding import NOW
from tests.points import ann_logs_in
from tests.world import World

AT = int(NOW.timestamp())
PARTNER = "{ partner { code } }"


def assertion(world: World, client_id: str, key: Any, alg: str = "ES256", **changes: Any) -> str:
    claims = {"iss": client_id, "sub": client_id, "aud": world.url, "jti": secrets.token_urlsafe(8), "iat": AT, "exp": AT + 60}
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    return jwt.encode({"alg": alg}, claims, key, registry=JOSE)


async def ask(world: World, asserted: str, dpop: str | None = None, **changes: str) -> httpx.Response:
    form = {"grant_type": "client_credentials", "client_assertion": asserted, "client_assertion_type": ASSERTION_TYPE, **changes}
    return await world.http.post("/oauth/token", data=form, headers={"DPoP": dpop} if dpop else {})


def proof(
    key: Any, url: str, alg: str = "ES256", token: str | None = None, header: dict[str, Any] | None = None, **changes: Any
) -> str:
    claims = {"htm": "POST", "htu": url, "iat": AT, "jti": secrets.token_urlsafe(8)}
    if token is not None:
        claims["ath"] = base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    return jwt.encode(
        {"typ": "dpop+jwt", "alg": alg, "jwk": key.as_dict(private=False), **(header or {})}, claims, key, registry=JOSE
    )


async def test_an_assertion_serves_once_and_only_as_it_must_be(world: World) -> None:
    client_id, (jwk,) = await keyed_client(world, "fuel", dpop=False)
    key = ECKey.import_key(jwk)
    good = assertion(world, client_id, key)
    first = await ask(world, good)
    assert first.status_code == 200
    assert (await world.ask(first.json()["access_token"], PARTNER))["partner"]["code"] == "fuel"
    assert (await ask(world, good)).json() == {
        "error": "invalid_client",
        "error_description": "The client could not be authenticated.",
    }
    assert (await ask(world, assertion(world, client_id, key, aud=[world.url]))).status_code == 200


WRONG: list[dict[str, Any]] = [
    {"aud": "https://elsewhere.example"},
    {"aud": ["https://elsewhere.example", "{url}"]},
    {"aud": ["{url}/oauth/token"]},
    {"aud": ["{url}/"]},
    {"aud": None},
    {"iss": "somebody"},
    {"sub": "partner-grocer"},
    {"jti": None},
    {"jti": ""},
    {"jti": "x" * 201},
    {"exp": AT},
    {"exp": None},
    {"exp": AT + 301},
    {"exp": "soon"},
    {"exp": AT + 0.9},
    {"exp": float("nan")},
    {"exp": float("inf")},
    {"iat": True},
    {"iat": AT + 11.0},
    {"iat": AT + 11},
    {"nbf": AT + 11},
]


async def test_a_client_with_keys_pushes_its_requests_first(world: World) -> None:
    client_id, _ = await keyed_client(world, "fuel", dpop=False)
    query, _ = authorization(world, client_id=client_id, redirect_uri="https://fuel.example/back")
    answer = await world.http.get("/oauth/authorize", params=query)
    assert answer.status_code == 400
    assert "/oauth/par" in answer.json()["error_description"]


async def test_an_assertion_that_is_not_right_opens_nothing(world: World) -> None:
    client_id, (jwk,) = await keyed_client(world, "fuel", dpop=False)
    for changes in WRONG:
        if isinstance(changes.get("aud"), list):
            changes = {"aud": [each.format(url=world.url) for each in changes["aud"]]}
        answer = await ask(world, assertion(world, client_id, ECKey.import_key(jwk), **changes))
        assert answer.status_code == 401, (changes, answer.text)
        assert "access_token" not in answer.text


async def test_a_moment_of_an_assertion_or_a_proof_may_have_a_fraction(world: World) -> None:
    """RFC 7519, section 2; and each serves once all the same."""
    client_id, (jwk,) = await keyed_client(world, "fuel", dpop=True)
    key = ECKey.import_key(jwk)
    url = f"{world.url}/oauth/token"
    good, shown = assertion(world, client_id, key, iat=AT + 0.25, exp=AT + 60.75), proof(key, url, iat=AT + 0.5)
    assert (await ask(world, good, shown)).status_code == 200
    assert (await ask(world, good, proof(key, url))).status_code == 401
    assert (await ask(world, assertion(world, client_id, key), shown)).status_code == 400


async def test_a_client_with_keys_has_no_secret_any_more_and_others_keys_do_not_open_it(world: World) -> None:
    client_id, _ = await keyed_client(world, "fuel", dpop=False)
    assert (await ask(world, assertion(world, client_id, ECKey.generate_key("P-256")))).status_code == 401
    by_secret = await world.http.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=world.clients["fuel"])
    assert by_secret.status_code == 401
    grocer = assertion(world, "partner-grocer", ECKey.generate_key("P-256"))
    assert (await ask(world, grocer)).status_code == 401
    for garbage in ("x", "a.b.c", "e30.e30.e30", "." * 5):
        assert (await ask(world, garbage)).status_code == 401
    both = await ask(world, grocer, client_id="partner-fuel")
    assert both.status_code == 400


@pytest.mark.parametrize(("kind", "alg"), [("ec", "ES256"), ("rsa", "PS256"), ("okp", "EdDSA"), ("okp", "Ed25519")])
async def test_proofs_in_every_algorithm_bind_a_token(world: World, kind: str, alg: str) -> None:
    key: Any = {"ec": lambda: ECKey.generate_key("P-256"), "rsa": lambda: RSAKey.generate_key(2048), "okp": OKPKey.generate_key}[
        kind
    ]()
    client_id, (jwk,) = await keyed_client(world, "fuel")
    bound = await ask(world, assertion(world, client_id, ECKey.import_key(jwk)), proof(key, f"{world.url}/oauth/token", alg))
    assert bound.json()["token_type"] == "DPoP"
    token = bound.json()["access_token"]
    shown = proof(key, f"{world.url}/graphql", alg, token)

    async def use(scheme: str = "DPoP", *proofs: str) -> httpx.Response:
        headers = [("Authorization", f"{scheme} {token}"), *(("DPoP", each) for each in proofs)]
        return await world.http.post("/graphql", json={"query": PARTNER}, headers=headers)

    assert (await use("DPoP", shown)).json()["data"]["partner"]["code"] == "fuel"
    again = await use("DPoP", shown)
    assert again.status_code == 401
    assert "used before" in again.text
    for answer in (await use("Bearer"), await use("DPoP"), await use("Bearer", shown), await use("DPoP", shown, shown)):
        assert answer.status_code == 401
        assert "data" not in answer.json()
    stranger = proof(ECKey.generate_key("P-256"), f"{world.url}/graphql", "ES256", token)
    assert (await use("DPoP", stranger)).status_code == 401


async def test_a_bearer_token_is_not_made_better_by_a_proof(world: World) -> None:
    token = await world.token("grocer")
    shown = proof(ECKey.generate_key("P-256"), f"{world.url}/graphql", "ES256", token)
    answer = await world.http.post("/graphql", json={"query": PARTNER}, headers={"Authorization": f"DPoP {token}", "DPoP": shown})
    assert answer.status_code == 401


KEY = ECKey.generate_key("P-256")
URL = "https://gateway.example/graphql"


def bad_proof(**changes: Any) -> str:
    """A proof that is right for the token but for what is said here."""
    return proof(KEY, URL, token="token", **changes)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (bad_proof(htm="GET"), "another request"),
        (proof(KEY, "https://elsewhere.example/graphql", token="token"), "another request"),
        (bad_proof(iat=AT - 61), "within the last 60 seconds"),
        (bad_proof(iat=AT + 11), "within the last 60 seconds"),
        (bad_proof(iat=None), "within the last 60 seconds"),
        (bad_proof(iat=True), "within the last 60 seconds"),
        (bad_proof(jti=None), "needs a jti"),
        (bad_proof(jti="x" * 201), "needs a jti"),
        (bad_proof(header={"typ": "jwt"}), "needs typ dpop\\+jwt"),
        (bad_proof(header={"jwk": ECKey.generate_key("P-256").as_dict(private=False)}), "signature does not hold"),
        (bad_proof(header={"jwk": KEY.as_dict(private=True)}), "its public key"),
        (bad_proof(header={"jwk": {"kty": "oct", "k": "c2VjcmV0"}}), "key of a DPoP proof is"),
        (bad_proof()[:-2], "signature does not hold"),
        (proof(KEY, URL, token="another"), "another access token"),
        (proof(KEY, URL), "another access token"),
        ("x" * 5_000, "too long"),
        ("", "signature does not hold"),
        ("a.b.c", "signature does not hold"),
    ],
)
def test_a_proof_that_is_not_right_is_refused_in_words(bad: str, told: str) -> None:
    with pytest.raises(BadProof, match=told):
        read_proof(bad, "POST", URL, NOW, "token")


def test_a_proof_may_name_the_url_with_a_query_and_in_capitals() -> None:
    assert read_proof(proof(KEY, "HTTPS://Gateway.example/graphql?a=1#b", token="token"), "POST", URL, NOW, "token").thumbprint


async def test_what_is_no_set_of_public_keys_is_not_registered(world: World) -> None:
    database = Database(world.dsn, 2)
    await database.open()
    partner_id = (await world.sql("select partner_id from partner where code = 'fuel'"))[0]["partner_id"]
    private = json.dumps({"keys": [ECKey.generate_key("P-256").as_dict(private=True)]})
    for keys in ("{}", '{"keys": []}', "nonsense", '{"keys": [{"kty": "EC"}]}', private):
        with pytest.raises(InputNotAccepted):
            async with database.transaction() as tx:
                await registration.create_keyed_client(tx, partner_id, "fuel", keys, False, NOW)
    await database.close()
    grant = {"grant_type": "client_credentials"}
    assert (await world.http.post("/oauth/token", data=grant, auth=world.clients["fuel"])).status_code == 200


async def test_a_proof_of_nonsense_is_refused_and_no_error(world: World) -> None:
    key = ECKey.generate_key("P-256", private=True)
    for changes in ({"htu": "http://["}, {"htu": 7}, {"jti": "\u0000"}, {"jti": "\u2028x"}, {"htm": ["POST"]}, {"iat": "now"}):
        claims = {"htm": "POST", "htu": f"{world.url}/oauth/token", "iat": AT, "jti": "j", **changes}
        header = {"alg": "ES256", "typ": "dpop+jwt", "jwk": key.as_dict(private=False)}
        bad = jwt.encode(header, claims, key, registry=JOSE)
        answer = await world.http.post(
            "/oauth/token", data={"grant_type": "client_credentials"}, auth=world.clients["grocer"], headers={"DPoP": bad}
        )
        assert answer.status_code == 400, changes
        assert answer.json()["error"] == "invalid_dpop_proof"


async def test_who_does_not_authenticate_is_not_told_whether_its_tokens_are_bound(world: World) -> None:
    await world.sql("update oauth_client set dpop_bound = true where client_id = 'partner-grocer'")
    said = [
        await world.http.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=(client, "gws_wrong"))
        for client in ("partner-grocer", "partner-nobody")
    ]
    assert [answer.status_code for answer in said] == [401, 401]
    assert said[0].json() == said[1].json()


async def test_a_request_that_is_pushed_with_a_proof_binds_its_code_to_that_key(world: World) -> None:
    key = ECKey.generate_key("P-256", private=True)
    asked, _ = authorization(world, client_id="member-app", redirect_uri="com.example.loyalty:/callback")
    nonsense = await world.http.post("/oauth/par", data=asked, headers={"DPoP": "nonsense"})
    assert (nonsense.status_code, nonsense.json()["error"]) == (400, "invalid_dpop_proof")
    made = proof(key, f"{world.url}/oauth/par", iat=int(world.clock.now().timestamp()))
    pushed = await world.http.post("/oauth/par", data=asked, headers={"DPoP": made})
    assert pushed.status_code == 201, pushed.text
    kept = (await world.sql("select parameters::text from pushed_request"))[0][0]
    assert str(key.thumbprint()) in kept


async def test_an_assertion_in_another_algorithm_opens_nothing(world: World) -> None:
    rsa, wide = RSAKey.generate_key(2048, {"kid": "r"}), ECKey.generate_key("P-384", {"kid": "e"})
    database = Database(world.dsn, 2)
    await database.open()
    async with database.transaction() as tx:
        partner_id = (await world.sql("select partner_id from partner where code = 'fuel'"))[0]["partner_id"]
        jwks = json.dumps({"keys": [key.as_dict(private=False) for key in (rsa, wide)]})
        client_id = await registration.create_keyed_client(tx, partner_id, "fuel", jwks, False, NOW)
    await database.close()
    claims = {"iss": client_id, "sub": client_id, "aud": world.url, "iat": AT, "exp": AT + 60}
    answers = {}
    for alg, key in (("RS256", rsa), ("RS384", rsa), ("ES384", wide), ("PS256", rsa)):
        made = jwt.encode({"alg": alg}, {**claims, "jti": alg}, key, algorithms=[alg])
        answers[alg] = (await ask(world, made)).status_code
    # The public key, taken for a shared secret.
    parts = [base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in ({"alg": "HS256"}, {**claims, "jti": "HS256"})]
    mac = hmac.digest(rsa.as_bytes(encoding="PEM", private=False), b".".join(parts), "sha256")
    made = b".".join([*parts, base64.urlsafe_b64encode(mac).rstrip(b"=")]).decode()
    answers["HS256"] = (await ask(world, made)).status_code
    assert answers == {"RS256": 401, "RS384": 401, "ES384": 401, "HS256": 401, "PS256": 200}


async def test_a_proof_serves_once_at_the_token_endpoint_too(world: World) -> None:
    made = proof(ECKey.generate_key("P-256"), f"{world.url}/oauth/token")
    statuses = []
    for _ in range(2):
        answer = await world.http.post(
            "/oauth/token", data={"grant_type": "client_credentials"}, auth=world.clients["grocer"], headers={"DPoP": made}
        )
        statuses.append((answer.status_code, answer.json().get("error")))
    assert statuses == [(200, None), (400, "invalid_dpop_proof")]


async def test_a_bound_token_opens_a_socket_with_its_proof_alone(world: World) -> None:
    client_id, (jwk,) = await keyed_client(world, "fuel")
    mine, other = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
    bound = await ask(world, assertion(world, client_id, ECKey.import_key(jwk)), proof(mine, f"{world.url}/oauth/token"))
    token = bound.json()["access_token"]
    good = proof(mine, f"{world.url}/graphql", token=token, htm="GET")
    wrong = proof(other, f"{world.url}/graphql", token=token, htm="GET")
    url = world.url.replace("http", "ws") + "/graphql"
    seen = []
    for shown in ({}, {"dpop": wrong}, {"dpop": good}, {"dpop": good}):
        async with connect(url, subprotocols=["graphql-transport-ws"]) as socket:  # type: ignore[list-item]
            await socket.send(json.dumps({"type": "connection_init", "payload": {"authorization": f"DPoP {token}", **shown}}))
            try:
                seen.append(json.loads(await socket.recv())["type"])
            except ConnectionClosed as closed:
                seen.append(closed.rcvd.code if closed.rcvd else None)
    assert seen == [4403, 4403, "connection_ack", 4403]


async def pushed_and_allowed(world: World, client_id: str, query: dict[str, str], auth: dict[str, str], key: Any) -> str:
    """A code for what the client pushed with a proof, once Ann has allowed it on the page."""
    headers = {"DPoP": proof(key, f"{world.url}/oauth/par")}
    pushed = await world.http.post("/oauth/par", data={**query, **auth}, headers=headers)
    assert pushed.status_code == 201, pushed.text
    request = {"client_id": client_id, "request_uri": pushed.json()["request_uri"]}
    # It is of this client, and of nobody else.
    stolen = await world.http.get("/oauth/authorize", params={**request, "client_id": "member-app"})
    assert stolen.status_code == 400
    form = {"login": "ann", "password": "ann's password", "decision": "allow"}
    page = await world.http.get("/oauth/authorize", params=request)
    answer = await world.http.post("/oauth/authorize", params=request, data={**form, **read_on(page)})
    landed = parse_qs(urlparse(answer.headers["location"]).query)
    assert landed["iss"] == [world.url]
    return landed["code"][0]


async def test_a_client_of_fapi2_goes_its_whole_way_and_nobody_goes_it_without_its_keys(world: World) -> None:
    """FAPI 2.0: private_key_jwt, a pushed request, PKCE, tokens bound by DPoP, and a refresh token that is not rotated."""
    await ann_logs_in(world)
    back = "https://fuel.example/back"
    client_id, (jwk,) = await keyed_client(world, "fuel", for_members=registration.ForMembers((back,), "to save points"))
    key, mine, other = ECKey.import_key(jwk), ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
    query, verifier = authorization(world, client_id=client_id, redirect_uri=back, scope="balance:read profile:read")

    def auth() -> dict[str, str]:
        return {"client_assertion": assertion(world, client_id, key), "client_assertion_type": ASSERTION_TYPE}

    async def told(path: str, shown: Any = None, **form: str) -> tuple[int, dict[str, Any]]:
        headers = {"DPoP": proof(shown, f"{world.url}{path}")} if shown is not None else {}
        answer = await world.http.post(path, data=form, headers=headers)
        return answer.status_code, answer.json() if answer.content else {}

    foreign = await told("/oauth/par", other, **query, **auth(), dpop_jkt=str(mine.thumbprint()))
    assert (foreign[0], foreign[1]["error"]) == (400, "invalid_dpop_proof")
    code = await pushed_and_allowed(world, client_id, query, auth(), mine)
    redeem = {"grant_type": "authorization_code", "code": code, "redirect_uri": back, "code_verifier": verifier}
    assert (await told("/oauth/token", mine, **redeem, client_id=client_id))[0] == 401
    assert (await told("/oauth/token", None, **redeem, **auth()))[1]["error"] == "invalid_dpop_proof"
    assert (await told("/oauth/token", other, **redeem, **auth()))[1]["error"] == "invalid_grant"
    status, tokens = await told("/oauth/token", mine, **redeem, **auth())
    assert (status, tokens["token_type"], tokens["scope"]) == (200, "DPoP", "balance:read profile:read")
    refresh = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    assert (await told("/oauth/token", mine, **refresh, client_id=client_id))[0] == 401
    assert (await told("/oauth/token", None, **refresh, **auth()))[0] == 400
    assert (await told("/oauth/token", other, **refresh, **auth()))[1]["error"] == "invalid_grant"
    for _ in range(2):
        status, again = await told("/oauth/token", mine, **refresh, **auth())
        assert (status, "refresh_token" in again) == (200, False)
    shown = await told("/oauth/introspect", None, token=again["access_token"], **auth())
    assert (shown[1]["active"], shown[1]["cnf"]) == (True, {"jkt": str(mine.thumbprint())})
    once = auth()
    assert (await told("/oauth/introspect", None, token="x", **once))[0] == 200
    assert (await told("/oauth/introspect", None, token="x", **once))[0] == 401
    assert (await told("/oauth/revoke", None, token=tokens["refresh_token"], client_id=client_id))[0] == 401
    assert (await told("/oauth/revoke", None, token=tokens["refresh_token"], **auth()))[0] == 200
    assert (await told("/oauth/token", mine, **refresh, **auth()))[1]["error"] == "invalid_grant"


async def test_a_pushed_request_runs_out_and_one_that_is_denied_is_used_up(world: World) -> None:
    await ann_logs_in(world)
    asked, _ = authorization(world, client_id="member-app", redirect_uri="com.example.loyalty:/callback")
    form = {"login": "ann", "password": "ann's password"}

    async def pushed() -> dict[str, str]:
        return {"client_id": "member-app", "request_uri": (await world.http.post("/oauth/par", data=asked)).json()["request_uri"]}

    denied = await pushed()
    answer = await world.http.post("/oauth/authorize", params=denied, data={"decision": "deny"})
    landed = parse_qs(urlparse(answer.headers["location"]).query)
    assert (landed["error"], landed["iss"]) == (["access_denied"], [world.url])
    assert (await world.http.post("/oauth/authorize", params=denied, data=form)).status_code == 400
    late = await pushed()
    world.clock.set(world.clock.now() + timedelta(seconds=301))
    assert (await world.http.post("/oauth/authorize", params=late, data=form)).status_code == 400
    assert (await world.sql("select count(*) from authorization_code where redirect_uri like 'com.%'"))[0][0] == 1  # of ann_logs_in
