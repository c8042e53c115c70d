"""Clients that others wrote go through the authorization server: npm's openid-client, Authlib's, requests-oauthlib."""

import asyncio
import json
import re
import statistics
import subprocess
import sys
import textwrap
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, OKPKey, RSAKey

from gateway.access import registration
from gateway.access.tokens import TWO_FACTORS
from gateway.database import Database
from tests.access.test_oauth import authorization
from tests.founding import NOW, OPERATOR_PASSWORD
from tests.points import ann_logs_in
from tests.world import World

CONSENTS = "{ me { consents { id partner { code } scopes } } }"
WITHDRAW = "mutation($i: WithdrawConsentInput!) { withdrawConsent(input: $i) { errors { code } } }"
ROOT = Path(__file__).parent.parent.parent
CLIENTS = ROOT / "tests/clients"


def node(*command: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    programme = [sys.executable, str(ROOT / "console/node.py"), *command]
    return subprocess.run(programme, cwd=CLIENTS, capture_output=True, text=True, timeout=seconds, check=False)


@pytest.fixture(scope="session")
def clients() -> Path:
    """The pinned npm packages, installed once."""
    if not (CLIENTS / "node_modules/openid-client").exists():
        installed = node("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
        assert installed.returncode == 0, installed.stderr
    return CLIENTS


KEYS: dict[str, tuple[type[ECKey | RSAKey | OKPKey], Any]] = {
    "ES256": (ECKey, "P-256"), "PS256": (RSAKey, 2048), "EdDSA": (OKPKey, "Ed25519")
}  # fmt: skip


async def keyed_client(
    world: World, code: str, dpop: bool = True, algorithms: tuple[str, ...] = ("ES256",),
    for_members: registration.ForMembers = registration.ForMembers(),
) -> tuple[str, list[dict[str, Any]]]:
    """Give a partner's client keys instead of its secrets; answers its id and the private keys."""
    keys = [
        KEYS[each][0].generate_key(KEYS[each][1], {"alg": each, "use": "sig"}, private=True, auto_kid=True) for each in algorithms
    ]
    database = Database(world.dsn, 2)
    await database.open()
    async with database.transaction() as tx:
        partner_id = (await world.sql("select partner_id from partner where code = $1", code))[0]["partner_id"]
        jwks = json.dumps({"keys": [key.as_dict(private=False) for key in keys]})
        client_id = await registration.create_keyed_client(tx, partner_id, code, jwks, dpop, NOW, for_members)
    await database.close()
    return client_id, [dict(key.as_dict(private=True)) for key in keys]


async def asking_client(world: World, code: str, redirect: str) -> tuple[str, str]:
    """A partner's client that may ask members for their consent."""
    database = Database(world.dsn, 2)
    await database.open()
    async with database.transaction() as tx:
        partner_id = (await world.sql("select partner_id from partner where code = $1", code))[0]["partner_id"]
        asks = registration.ForMembers((redirect,), "to show your points on board")
        made = await registration.create_partner_client(tx, partner_id, code, NOW, for_members=asks)
    await database.close()
    return made


async def test_openid_client_goes_through_every_flow_and_its_negatives(real_time: World, clients: Path) -> None:
    world = real_time
    client_id, jwks = await keyed_client(world, "fuel", algorithms=("ES256", "PS256", "EdDSA"))
    stale = "a-session-that-is-twenty-minutes-old"
    await world.sql(
        "insert into console_session select sha256($1::bytea), account_id, now() + interval '1 hour', now() - interval '20 minutes', true"
        " from account where login = 'olga'",
        stale.encode(),
    )
    asking = await asking_client(world, "airline", "https://airline.example/back")
    me, consents, withdraw = [(await world.named(await ann_logs_in(world), text))["documentId"] for text in ("{ me { id } }", CONSENTS, WITHDRAW)]
    prepared = {
        "secret": {"id": world.clients["grocer"][0], "secret": world.clients["grocer"][1]},
        "keyed": {"id": client_id, "jwks": jwks},
        "operator": {"login": "olga", "password": OPERATOR_PASSWORD, "code": world.code_of("olga")},
        "staleSession": f"__Host-gateway_console={stale}",
        "partner": {"id": asking[0], "secret": asking[1], "redirect": "https://airline.example/back"},
        "app": {"id": "member-app", "redirect": "com.example.loyalty:/callback", "login": "ann", "password": "ann's password"}
        | {"me": me, "consents": consents, "withdraw": withdraw},
    }
    done = await asyncio.to_thread(node, "node", "flows.mjs", world.url, json.dumps(prepared))
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen == {
        "basic": [200, "grocer"],
        "post": [200, "grocer"],
        "wrongSecret": "OAUTH_WWW_AUTHENTICATE_CHALLENGE",
        "introspected": True,
        "withoutOneTimeCode": 401,
        "stepUpAsked": {"error": "insufficient_user_authentication", "acr_values": TWO_FACTORS, "max_age": "900"},
        "steppedUp": [200, "STATE_CONFLICT"],
        "oneTimeCodeAgain": 401,
        "algorithms": [["ES256", 200, "fuel"], ["PS256", 200, "fuel"], ["EdDSA", 200, "fuel"]],
        "boundType": "dpop",
        "bound": [200, "fuel"],
        "boundAsBearer": [401, "OAUTH_WWW_AUTHENTICATE_CHALLENGE"],
        "boundByStranger": [401, "OAUTH_WWW_AUTHENTICATE_CHALLENGE"],
        "unboundForBoundClient": "invalid_dpop_proof",
        "replayedAssertion": "invalid_client",
        "wrongAudience": "invalid_client",
        "code": 200,
        "hasRefresh": True,
        "pushed": [False, 200],
        "pushedTwice": 400,
        "plainPkce": "invalid_request",
        "foreignRedirect": 400,
        "wrongVerifier": "invalid_grant",
        "replayedCode": "invalid_grant",
        "refreshAfterReplay": "invalid_grant",
        "refreshed": 200,
        "reused": "invalid_grant",
        "familyEnded": "invalid_grant",
        "refreshRevoked": "invalid_grant",
        "boundApp": [200, 401, 401],
        "boundRefreshByOther": "invalid_grant",
        "boundRefreshUnbound": "invalid_grant",
        "boundRefresh": 200,
        "exchangedWithoutConsent": "invalid_grant",
        "consentDenied": "access_denied",
        "foreignResource": "invalid_target",
        "consented": 200,
        "notRotated": [200, None],
        "refreshByStranger": "unauthorized_client",
        "exchanged": [200, "profile:read"],
        "exchangedWithAllOfIt": "invalid_request",
        "exchangedWider": "invalid_scope",
        "exchangedAgain": "invalid_grant",
        "consentsListed": [["airline", ["balance:read", "profile:read"]]],
        "withdrawn": [],
        "refreshAfterWithdrawal": "invalid_grant",
        "exchangedAfterWithdrawal": "invalid_grant",
        "revokedPartner": [401, "OAUTH_WWW_AUTHENTICATE_CHALLENGE"],
        "revokedIntrospected": False,
        "revokedMember": 401,
        "endedFamilyMember": 401,
        "actingAfterWithdrawal": 401,
    }


def snippet(library: str) -> str:
    """What docs/integrating.md shows of a library, as the body of a function that returns the answer."""
    guide = (ROOT / "docs/integrating.md").read_text()
    shown = next(each for each in re.findall(r"```python\n(.*?)```", guide, re.S) if library in each)
    return textwrap.indent(shown + "return answer\n", "    ")


async def test_authlibs_own_client_works_in_the_guides_words(real_time: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client_id, secret = real_time.clients["grocer"]
    said: dict[str, Any] = {"CLIENT_ID": client_id, "SECRET": secret, "GATEWAY": real_time.url}
    exec(f"async def shown():\n{snippet('authlib')}", said)  # noqa: S102
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    answer = await said["shown"]()
    assert answer.json()["data"]["partner"]["code"] == "grocer"
    from authlib.integrations.httpx_client import AsyncOAuth2Client

    async with AsyncOAuth2Client(client_id, secret, token_endpoint_auth_method="client_secret_basic", trust_env=False) as client:
        token = await client.fetch_token(f"{real_time.url}/oauth/token", grant_type="client_credentials", scope="partner")
        assert token["scope"] == "partner"
        await client.revoke_token(f"{real_time.url}/oauth/revoke", token=token["access_token"])
        async with asyncio.timeout(3):
            while (await client.post(f"{real_time.url}/graphql", json={"query": "{ partner { code } }"})).status_code != 401:
                await asyncio.sleep(0.05)


async def test_requests_oauthlib_works_in_the_guides_words(real_time: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from oauthlib.oauth2 import InvalidClientError

    client_id, secret = real_time.clients["fuel"]
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")  # the loopback
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def talk(secret: str) -> Any:
        said: dict[str, Any] = {"CLIENT_ID": client_id, "SECRET": secret, "GATEWAY": real_time.url}
        exec(f"def shown():\n{snippet('requests_oauthlib')}", said)  # noqa: S102
        return said["shown"]().json()

    assert (await asyncio.to_thread(talk, secret))["data"]["partner"]["code"] == "fuel"
    with pytest.raises(InvalidClientError):
        await asyncio.to_thread(talk, "wrong")


async def test_unknown_and_wrong_take_as_long_and_say_the_same(world: World) -> None:
    """Medians over many tries, alternating, so that what else the machine does falls on both."""
    query, _ = authorization(world)

    async def took(status: int, path: str, **request: Any) -> float:
        began = time.perf_counter()
        answer = await world.http.post(path, **request)
        assert answer.status_code == status
        return time.perf_counter() - began

    async def token(client_id: str) -> float:
        return await took(401, "/oauth/token", data={"grant_type": "client_credentials"}, auth=(client_id, "gws_wrong"))

    async def login(name: str) -> float:
        return await took(401, "/oauth/authorize", params=query, data={"login": name, "password": "a wrong password"})

    known, unknown = [], []
    for _ in range(60):
        known.append(await token(world.clients["grocer"][0]))
        unknown.append(await token("partner-nobody"))
    assert 0.5 < statistics.median(known) / statistics.median(unknown) < 2
    await world.new_operator("gone", ["support"])
    await world.disable("gone")
    known, unknown, disabled = [], [], []
    for n in range(12):
        if n % 4 == 0:  # the fifth wrong password would lock the login
            world.clock.set(world.clock.now() + timedelta(minutes=20))
            await world.sql("delete from login_failure")
        known.append(await login("olga"))
        unknown.append(await login(f"nobody-{n}"))
        disabled.append(await login("gone"))
    assert 0.5 < statistics.median(disabled) / statistics.median(unknown) < 2
    assert 0.5 < statistics.median(known) / statistics.median(unknown) < 2


@pytest.mark.parametrize(
    ("uri", "is_one"),
    [
        ("https://shop.example/back?x=1", True),
        ("https://shop.example:8443/back", True),
        ("http://localhost:3000/cb", True),
        ("http://[::1]:3000/cb", True),
        ("com.example.loyalty:/callback", True),
        ("http://shop.example/back", False),
        ("http://evil.example\\@localhost/cb", False),
        ("https://evil.example\\.shop.example/", False),
        ("https://shop.example@evil.example/", False),
        ('https://shop.example/"onload', False),
        ("https://shop.example/<b>", False),
        ("http://localhost:99999/", False),
        ("http://localhost:0/", False),
        ("https://shop.example/#here", False),
        ("https://", False),
        ("javascript:alert(1)", False),
        ("https://shop.example/ back", False),
    ],
)
def test_codes_are_sent_to_addresses_that_everybody_reads_alike(uri: str, is_one: bool) -> None:
    assert registration.is_redirect_uri(uri) is is_one
