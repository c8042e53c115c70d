"""A small coalition for tests: a grocer, a fuel station, an airline with a simulated system, and a running gateway."""

import asyncio
import base64
import contextlib
import functools
import hashlib
import itertools
import json
import secrets
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse
from uuid import UUID

import asyncpg
import httpx
import pyotp
import uvicorn
from starlette.applications import Starlette

from gateway.access import accounts
from gateway.access.tokens import Tokens, open_tokens
from gateway.access.vault import KEY_FILE, Vault, open_vault
from gateway.clock import Clock, SetClock
from gateway.database import Database, Tx
from gateway.http.documents import document_id
from gateway.http.engine import Engine
from gateway.ledger.verify import verify
from gateway.main import create_app
from gateway.schema import create_schema
from gateway.server import Server, server_config
from gateway.settings import read_settings
from partners.simulator.app import create_airline
from tests.founding import NOW, OPERATOR_PASSWORD, Founded

RECORD = """
mutation($input: PurchaseInput!) { recordPurchase(input: $input) {
  earning { id points programme { code } period missedPeriod purchase { id receipt total { amount currency } }
            explanation { rule version amount multiplier rounding points funder } }
  errors { code message path } } }
"""
RETURN = """
mutation($input: ReturnInput!) { returnPurchase(input: $input) {
  purchaseReturn { id points owed period missedPeriod total { amount } } errors { code message path } } }
"""
REDEEM = """
mutation($input: RedeemPointsInput!) { redeemPoints(input: $input) {
  redemption { id points takes { points expiresOn funder { code } } } errors { code message path } } }
"""
WALLET = "query($ref: MemberRef!) { membership(ref: $ref) { wallets { available held owed pending programme { code } } } }"


def free_door() -> tuple[socket.socket, int]:
    """A socket of the loopback that is bound, and stays so: no test beside this one can take its port."""
    # asyncio turns Nagle's algorithm off for sockets that say they are TCP; left on, every answer would wait 40 ms.
    door = socket.socket(proto=socket.IPPROTO_TCP)
    door.bind(("127.0.0.1", 0))
    return door, door.getsockname()[1]


async def started(app: Any, door: socket.socket, proxies: tuple[str, ...] = ()) -> tuple[uvicorn.Server, "asyncio.Task[None]"]:
    server = Server(server_config(app, proxies))
    task = asyncio.create_task(server.serve(sockets=[door]))
    while not server.started:
        assert not task.done(), "the server did not start"
        await asyncio.sleep(0.005)
    return server, task


@contextlib.asynccontextmanager
async def serving(app: Starlette, proxies: tuple[str, ...] = ()) -> AsyncIterator[tuple[str, uvicorn.Server, "asyncio.Task[None]"]]:
    """An application on a free port of the loopback; answers its URL, and what to stop."""
    door, port = free_door()
    server, task = await started(app, door, proxies)
    try:
        yield f"http://127.0.0.1:{port}", server, task
    finally:
        server.should_exit = True
        await task


@dataclass
class World:
    """The running coalition, and the verbs a till, an app or an operator would use."""

    url: str
    airline_url: str
    http: httpx.AsyncClient
    clock: SetClock
    dsn: str
    data_dir: Path
    clients: dict[str, tuple[str, str]]
    tokens: dict[str, str] = field(default_factory=dict)
    numbers: Any = field(default_factory=itertools.count)
    airline_server: Any = None
    jobs: Any = None
    factors: dict[str, str] = field(default_factory=dict)
    registered: set[tuple[str, str]] = field(default_factory=set)

    async def vault(self, database: Database) -> Vault:
        """The gateway's own vault."""
        return await open_vault(database, read_settings({}, data_dir=self.data_dir))

    async def signer(self, database: Database, clock: Clock | None = None) -> Tokens:
        """What signs and checks tokens as the gateway does, at the world's time or by another clock."""
        return await open_tokens(database, read_settings({}, data_dir=self.data_dir, issuer=self.url), clock or self.clock)

    async def stop_airline(self) -> None:
        """The airline's system goes away: nobody listens there any more."""
        server, task = self.airline_server
        server.should_exit = True
        await task

    async def token(self, who: str) -> str:
        """A token of a partner by its code."""
        if who not in self.tokens:
            client = self.clients[who]
            answer = await self.http.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=client)
            self.tokens[who] = answer.json()["access_token"]
        return self.tokens[who]

    async def post(self, who: str | None, query: str, **variables: Any) -> httpx.Response:
        """A GraphQL request as `who`: a partner's code, a ready token, or None for nobody."""
        headers = {}
        asked: dict[str, Any] = {"query": query}
        if who is not None:
            token = who if "." in who else await self.token(who)
            headers["Authorization"] = f"Bearer {token}"
            asked = await self.named(token, query)
        return await self.http.post("/graphql", json={**asked, "variables": variables}, headers=headers)

    async def named(self, token: str, query: str) -> dict[str, Any]:
        """A document as the bearer of a token may send it: a member's app registers it, and sends its id."""
        claims = said_by(token)
        if claims.get("kind") != "member" or "act" in claims:
            return {"query": query}
        id, client = document_id(query), claims["client_id"]
        if (client, id) not in self.registered:
            await self.sql("insert into trusted_document values ($1, $2, $3, now()) on conflict do nothing", client, id, query)
            self.registered.add((client, id))  # only now: others ask at the same time
        return {"documentId": id}

    async def ask(self, who: str, query: str, **variables: Any) -> dict[str, Any]:
        """The data of a request that must not have errors."""
        body = (await self.post(who, query, **variables)).json()
        assert "errors" not in body, body
        data: dict[str, Any] = body["data"]
        return data

    def purchase(self, amount: str, **changes: Any) -> dict[str, Any]:
        """The input of a purchase of Ann, with a key and a receipt of its own."""
        number = next(self.numbers)
        return {
            "idempotencyKey": f"key-{number}",
            "receipt": f"receipt-{number}",
            "member": {"externalId": "ann"},
            "occurredAt": self.clock.now().isoformat(),
            "total": {"amount": amount, "currency": "USD"},
            **changes,
        }

    async def record(self, amount: str, who: str = "grocer", **changes: Any) -> dict[str, Any]:
        return (await self.ask(who, RECORD, input=self.purchase(amount, **changes)))["recordPurchase"]

    async def give_back(self, receipt: str, who: str = "grocer", **changes: Any) -> dict[str, Any]:
        input = {
            "idempotencyKey": f"key-{next(self.numbers)}",
            "receipt": receipt,
            "occurredAt": self.clock.now().isoformat(),
            **changes,
        }
        return (await self.ask(who, RETURN, input=input))["returnPurchase"]

    async def redeem(self, points: int, who: str = "fuel", **changes: Any) -> dict[str, Any]:
        input = {
            "idempotencyKey": f"key-{next(self.numbers)}",
            "member": {"externalId": "ann"},
            "programme": "MER",
            "points": points,
            **changes,
        }
        return (await self.ask(who, REDEEM, input=input))["redeemPoints"]

    async def wallet(self, who: str = "grocer", external_id: str = "ann") -> dict[str, Any]:
        """Ann's MER wallet as a partner sees it."""
        found = (await self.ask(who, WALLET, ref={"externalId": external_id}))["membership"]
        return next(w for w in found["wallets"] if w["programme"]["code"] == "MER")

    async def available(self) -> int:
        return (await self.wallet())["available"]

    async def operator(self) -> str:
        """A token of the operator, logged in through the pages."""
        if "operator" not in self.tokens:
            self.tokens["operator"] = await log_in(self, "console", f"{self.url}/graphiql", "olga", OPERATOR_PASSWORD)
        return self.tokens["operator"]

    def code_of(self, login: str) -> str:
        """The one-time code of a login now; empty for one without a second factor."""
        return pyotp.TOTP(self.factors[login]).at(self.clock.now()) if login in self.factors else ""

    async def set_password(
        self, login: str, password: str, member: UUID | None = None, roles: Sequence[str] = (), late: timedelta = timedelta()
    ) -> UUID:
        """A new local account, or a new password: an operator's, or a member's; answers the account's id."""
        async with self._as_commands_do() as (tx, vault):
            kind = "operator" if member is None else "member"
            return await accounts.set_password(tx, vault, kind, login, password, member, self.clock.now() - late, roles)

    async def new_operator(self, login: str, roles: Sequence[str], factor: bool = True) -> None:
        """Another operator, with the password of all, and a second factor as all have."""
        account_id = await self.set_password(login, OPERATOR_PASSWORD, roles=roles)
        if factor:
            async with self._as_commands_do() as (tx, vault):
                self.factors[login] = await accounts.set_second_factor(tx, vault, account_id)

    async def disable(self, login: str) -> None:
        """An operator's account ends, as by `gateway operator disable`."""
        async with self._as_commands_do() as (tx, _):
            account = await tx.one(accounts.sql.operator_by_login, login=login)
            assert account is not None
            await accounts.disable(tx, account, self.clock.now())

    @contextlib.asynccontextmanager
    async def _as_commands_do(self) -> AsyncIterator[tuple[Tx, Vault]]:
        """A transaction over a connection of its own, and the vault."""
        database = Database(self.dsn, 2)
        await database.open()
        vault = await self.vault(database)
        async with database.transaction() as tx:
            yield tx, vault
        await database.close()

    async def sql(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """A query as the database's owner, past every wall."""
        connection = await asyncpg.connect(self.dsn)
        try:
            return await connection.fetch(query, *arguments)
        finally:
            await connection.close()

    async def transactions(self) -> int:
        """How many transactions the ledger holds: what a refusal must not change."""
        return (await self.sql("select count(*) from transaction"))[0][0]

    async def broken(self) -> list[str]:
        """Names of the invariants that do not hold."""
        database = Database(self.dsn, 2)
        await database.open()
        try:
            return [check.name async for check in verify(database) if not check.holds]
        finally:
            await database.close()


def said_by(token: str) -> dict[str, Any]:
    """The claims of a JWT, unchecked; none of what is no JWT."""
    try:
        payload = token.split(".")[1]
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        return {}
    return claims


async def log_in(world: World, client_id: str, redirect_uri: str, login: str, password: str, scope: str = "") -> str:
    """Authorization code with PKCE, as an app does it; answers the access token."""
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "state": "s",
    }
    if scope:
        query["scope"] = scope
    form = {"login": login, "password": password, "code": world.code_of(login)}
    answer = await world.http.post("/oauth/authorize", params=query, data=form)
    assert answer.status_code == 303, answer.text
    landed = parse_qs(urlparse(answer.headers["location"]).query)
    assert landed["iss"] == [world.url]
    answer = await world.http.post(
        "/oauth/token",
        data={
            "grant_type": "authorization_code",
            "client_id": client_id,
            "redirect_uri": redirect_uri,
            "code": landed["code"][0],
            "code_verifier": verifier,
        },
    )
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["access_token"]
    return token


@functools.cache
def engine() -> Engine:
    """One engine for the worlds of a run: making the schema takes a quarter of a second."""
    return Engine(create_schema())


@dataclass(frozen=True)
class Place:
    """Where a world runs: a copy of the founded coalition's database, and a folder."""

    dsn: str
    folder: Path
    founded: Founded


@contextlib.asynccontextmanager
async def open_world(place: Place, jobs: tuple[str, ...] = ("conversions",), clock: Any = None, **configured: Any) -> AsyncIterator[World]:
    """Run the gateway over a copy of the founded coalition, with an airline of its own.

    Most jobs are run by the tests that want them, so that nothing happens behind the back of the others. The clock stands
    still unless another one is given.
    """
    clock, founded = clock or SetClock(NOW), place.founded
    (place.folder / KEY_FILE).write_bytes(founded.vault_key)
    async with serving(create_airline(place.folder / "airline.sqlite")) as (airline_url, *airline_server):
        door, port = free_door()
        configured = {"partner_hosts": (airline_url.removeprefix("http://"), "127.0.0.1:9", "bakery.example"), **configured}
        settings = read_settings({}, data_dir=place.folder, port=port, jobs=jobs, **configured)
        async with httpx.AsyncClient(base_url=settings.base_url, timeout=30, trust_env=False, verify=False) as http:  # noqa: S501
            world = World(
                settings.base_url,
                airline_url,
                http,
                clock,
                place.dsn,
                place.folder,
                dict(founded.clients),
                airline_server=airline_server,
                factors=dict(founded.factors),
            )
            await world.sql("update partner set endpoint = $1 where code = 'airline'", airline_url)
            app = await create_app(settings, place.dsn, clock, engine())
            server, task = await started(app, door)
            world.jobs = app.jobs
            try:
                yield world
            finally:
                server.should_exit = airline_server[0].should_exit = True
                await task


async def ann_joins(world: World) -> None:
    """She is enrolled everywhere."""
    enrol = "mutation($i: EnrolMemberInput!) { enrolMember(input: $i) { errors { code } } }"
    link = "mutation($i: LinkMembershipInput!) { linkMembership(input: $i) { errors { code } } }"
    for partner, document in (("grocer", enrol), ("fuel", link), ("airline", link)):
        await world.ask(partner, document, i={"externalId": "ann", "card": "CARD-1"})
