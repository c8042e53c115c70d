"""What a request to the authorization server names is looked at each time, for this request alone, and not kept in plain."""

import asyncio
import json
from typing import Any
from urllib.parse import parse_qs, urlparse

import httpx
import pytest
from joserfc.jwk import ECKey, RSAKey

from gateway.access import registration
from gateway.access.clients import ASSERTION_TYPE
from gateway.database import Database
from tests.access.consenting import BACK, WITHDRAW, agree, ask_on_the_page, client_with_page, exchange
from tests.access.test_clients import keyed_client
from tests.access.test_keys import ask, assertion, proof
from tests.access.test_oauth import authorization
from tests.access.test_refreshing import app_tokens, refresh
from tests.founding import NOW
from tests.points import ann_hands_over, ann_logs_in
from tests.world import World

GRANT = {"grant_type": "client_credentials"}
REDIRECT = "com.example.loyalty:/callback"


async def test_a_code_that_was_bound_to_a_key_is_worth_nothing_without_it(world: World) -> None:
    await ann_logs_in(world)
    mine, other = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
    query, verifier = authorization(world, client_id="member-app", redirect_uri=REDIRECT)

    async def redeemed(key: Any) -> tuple[int, str | None, str | None]:
        pushed = await world.http.post("/oauth/par", data=query, headers={"DPoP": proof(mine, f"{world.url}/oauth/par")})
        request = {"client_id": "member-app", "request_uri": pushed.json()["request_uri"]}
        landed = await world.http.post("/oauth/authorize", params=request, data={"login": "ann", "password": "ann's password"})
        code = parse_qs(urlparse(landed.headers["location"]).query)["code"][0]
        form = {"grant_type": "authorization_code", "client_id": "member-app", "redirect_uri": REDIRECT, "code": code}
        headers = {"DPoP": proof(key, f"{world.url}/oauth/token")} if key is not None else {}
        answer = await world.http.post("/oauth/token", data={**form, "code_verifier": verifier}, headers=headers)
        return answer.status_code, answer.json().get("error"), answer.json().get("token_type")

    assert await redeemed(None) == (400, "invalid_grant", None)
    assert await redeemed(other) == (400, "invalid_grant", None)
    assert await redeemed(mine) == (200, None, "DPoP")


async def test_what_shows_who_a_client_is_is_not_kept_with_what_it_pushed(world: World) -> None:
    (client_id, secret) = await client_with_page(world)
    query, _ = authorization(world, client_id=client_id, redirect_uri=BACK, scope="balance:read")
    assert (await world.http.post("/oauth/par", data={**query, "client_secret": secret})).status_code == 201
    client_id, (jwk,) = await keyed_client(world, "airline", dpop=False, for_members=registration.ForMembers((BACK,), "to save points"))
    shown = {"client_assertion": assertion(world, client_id, ECKey.import_key(jwk)), "client_assertion_type": ASSERTION_TYPE}
    assert (await world.http.post("/oauth/par", data={**query, "client_id": client_id, **shown})).status_code == 201
    kept = "".join(row[0] for row in await world.sql("select parameters::text from pushed_request"))
    assert kept.count("code_challenge_method") == 2
    for secret_part in ("client_secret", "client_assertion", secret, shown["client_assertion"]):
        assert secret_part not in kept


async def test_a_consent_that_was_withdrawn_before_its_code_was_redeemed_gives_no_token(world: World) -> None:
    await ann_logs_in(world)
    client = await client_with_page(world)
    answer, verifier = await ask_on_the_page(world, login="ann", password="ann's password", decision="allow")
    code = parse_qs(urlparse(answer.headers["location"]).query)["code"][0]
    ann = await ann_logs_in(world)
    (consent,) = (await world.ask(ann, "{ me { consents { id } } }"))["me"]["consents"]
    await world.ask(ann, WITHDRAW, i={"consent": consent["id"]})
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": BACK, "code_verifier": verifier}
    late = await world.http.post("/oauth/token", data=form, auth=client)
    assert (late.status_code, late.json()["error"]) == (400, "invalid_grant")
    assert await world.sql("select from token_family where client_id = 'partner-fuel'") == []


@pytest.mark.parametrize("bits", [1024, 2040, 4104])
async def test_rsa_keys_of_no_fit_length_sign_nothing(world: World, bits: int) -> None:
    short = RSAKey.generate_key(bits)
    made = proof(short, f"{world.url}/oauth/token", alg="PS256")
    answer = await world.http.post("/oauth/token", data=GRANT, auth=world.clients["fuel"], headers={"DPoP": made})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")
    client_id, _ = await keyed_client(world, "fuel", dpop=False)
    await world.sql("update oauth_client set jwks = $1 where client_id = $2", json.dumps({"keys": [short.as_dict(private=False)]}), client_id)
    assert (await ask(world, assertion(world, client_id, short, alg="PS256"))).status_code == 401


async def test_a_client_authenticates_in_one_way_in_the_body_and_as_it_says(world: World) -> None:
    client_id, secret = world.clients["grocer"]

    async def told(form: dict[str, str], url: str = "/oauth/token", **options: Any) -> httpx.Response:
        return await world.http.post(url, data={**GRANT, **form}, **options)

    assert (await told({"client_secret": secret}, auth=(client_id, secret))).status_code == 400
    in_address = await told({"client_id": client_id}, f"/oauth/token?client_secret={secret}")
    assert (in_address.status_code, "body" in in_address.json()["error_description"]) == (400, True)
    fuel, (jwk,) = await keyed_client(world, "fuel", dpop=False)
    key = ECKey.import_key(jwk)
    for type_ in ("urn:ietf:params:oauth:client-assertion-type:saml2-bearer", "x"):
        assert (await told({"client_assertion": assertion(world, fuel, key), "client_assertion_type": type_})).status_code == 400
    proofs = [("DPoP", proof(ECKey.generate_key("P-256"), f"{world.url}/oauth/token")) for _ in range(2)]
    twice = await told({}, auth=(client_id, secret), headers=proofs)
    assert (twice.status_code, twice.json()["error"]) == (400, "invalid_dpop_proof")


async def test_a_token_is_exchanged_for_one_of_this_api_alone_whichever_word_asks(world: World) -> None:
    await agree(world, "profile:read")
    ann = await ann_hands_over(world, "profile:read")
    for word in ("resource", "audience"):
        assert (await exchange(world, ann, **{word: "https://elsewhere.example"})).json()["error"] == "invalid_target"
        assert (await exchange(world, ann, **{word: f"{world.url}/graphql"})).status_code == 200


async def test_secrets_from_before_a_client_had_keys_do_not_come_back(world: World) -> None:
    first = world.clients["fuel"]
    await keyed_client(world, "fuel", dpop=False)
    database = Database(world.dsn, 2)
    await database.open()
    async with database.transaction() as tx:
        fuel = (await world.sql("select partner_id from partner where code = 'fuel'"))[0][0]
        again = await registration.create_partner_client(tx, fuel, "fuel", NOW)
    await database.close()
    assert (await world.http.post("/oauth/token", data=GRANT, auth=again)).status_code == 200
    assert (await world.http.post("/oauth/token", data=GRANT, auth=first)).status_code == 401


async def test_a_refresh_token_that_has_ended_is_told_to_be_none(world: World) -> None:
    client = await client_with_page(world)
    await ann_logs_in(world)
    answer, verifier = await ask_on_the_page(world, login="ann", password="ann's password", decision="allow")
    code = parse_qs(urlparse(answer.headers["location"]).query)["code"][0]
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": BACK, "code_verifier": verifier}
    token = (await world.http.post("/oauth/token", data=form, auth=client)).json()["refresh_token"]
    for expected in (True, False):
        told = (await world.http.post("/oauth/introspect", data={"token": token}, auth=client)).json()
        assert told["active"] is expected
        assert (await world.http.post("/oauth/revoke", data={"token": token}, auth=client)).status_code == 200
    assert told == {"active": False}


async def test_however_many_refresh_one_token_at_once_no_more_than_four_go_on(world: World) -> None:
    token = (await app_tokens(world))["refresh_token"]
    answers = await asyncio.gather(*(refresh(world, token) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [400] * 16
