"""What tests of consents ask for, as a member, as its app and as the partner."""

import re
from typing import Any

import httpx

from gateway.access import registration
from gateway.access.grants import ACCESS_TOKEN_TYPE
from gateway.database import Database
from tests.access.test_oauth import authorization
from tests.founding import NOW
from tests.points import ann_logs_in, codes
from tests.world import World

EXCHANGE = registration.EXCHANGE
GRANT = "mutation($i: GrantConsentInput!) { grantConsent(input: $i) { consent { id scopes dataClasses partner { code } } errors { code } } }"
WITHDRAW = "mutation($i: WithdrawConsentInput!) { withdrawConsent(input: $i) { consent { withdrawnAt } errors { code } } }"
PERSON = "mutation($i: UpdatePersonInput!) { updatePerson(input: $i) { person { email } errors { code } } }"
ME = "{ me { wallets { available } } }"
FOLLOW = "subscription { walletChanged { cursor wallets { available } } }"
BACK = "https://fuel.example/back"


async def agree(
    world: World, *scopes: str, data_classes: tuple[str, ...] = (), partner: str = "fuel", purpose: str = "to save points"
) -> str:
    given = {"partner": partner, "purpose": purpose, "scopes": scopes, "dataClasses": data_classes}
    answer = (await world.ask(await ann_logs_in(world), GRANT, i=given))["grantConsent"]
    assert codes(answer) == []
    return str(answer["consent"]["id"])


async def exchange(world: World, subject: str, who: str = "fuel", **changes: str) -> httpx.Response:
    form = {"grant_type": EXCHANGE, "subject_token": subject, "subject_token_type": ACCESS_TOKEN_TYPE, **changes}
    return await world.http.post("/oauth/token", data=form, auth=world.clients[who])


async def client_with_page(world: World) -> tuple[str, str]:
    """Give the fuel station a client that may ask members on the consent page."""
    database = Database(world.dsn, 2)
    await database.open()
    async with database.transaction() as tx:
        fuel = (await world.sql("select partner_id from partner where code = 'fuel'"))[0][0]
        asks = registration.ForMembers((BACK,), "to show your points at the pump")
        made = await registration.create_partner_client(tx, fuel, "fuel", NOW, for_members=asks)
    await database.close()
    world.clients["fuel"] = made
    return made


async def ask_on_the_page(world: World, **form: str) -> tuple[httpx.Response, str]:
    query, verifier = authorization(
        world, client_id="partner-fuel", redirect_uri=BACK, scope="balance:read profile:read points:earn", data_classes="contact secrets"
    )
    page = await world.http.get("/oauth/authorize", params=query)
    if not form:
        return page, verifier
    return await world.http.post("/oauth/authorize", params=query, data={**form, **read_on(page)}), verifier


def read_on(page: httpx.Response) -> dict[str, str]:
    """What a consent page has its form send back: the digest of what it says."""
    found = re.search(r'name="told" value="(\w+)"', page.text)
    return {"told": found[1]} if found else {}


async def person_seen_by_fuel(world: World) -> dict[str, Any] | None:
    query = '{ membership(ref: {externalId: "ann"}) { person { name email phone } } }'
    world.tokens.pop("fuel", None)
    found: dict[str, Any] | None = (await world.ask("fuel", query))["membership"]["person"]
    return found
