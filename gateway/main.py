"""The only place where things are wired together."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from gateway.access.audit import Audit
from gateway.access.clerk import Clerk
from gateway.access.follow import WATCH_SECONDS, follow, read_again
from gateway.access.issuers import OutsideIssuers, read_issuers
from gateway.access.jwks import Fetcher
from gateway.access.registration import APP_CLIENT, CONSOLE_CLIENT, register_public_client
from gateway.access.scopes import MEMBER, OPERATOR
from gateway.access.server import OAuthServer
from gateway.access.signing_keys import load_signing_keys
from gateway.access.tokens import Tokens
from gateway.access.vault import open_vault
from gateway.clock import Clock, SystemClock
from gateway.coalition.catalogue import Catalogue
from gateway.coalition.connections import Connections
from gateway.context import Doors
from gateway.conversion.convert import Converter
from gateway.database import Database
from gateway.events.feed import Feed
from gateway.events.outbox import check_server
from gateway.http import patience
from gateway.http.budget import Budgets
from gateway.http.console import console_routes
from gateway.http.doorman import Doorman
from gateway.http.endpoint import GraphQLEndpoint
from gateway.http.engine import Engine
from gateway.http.headers import secured
from gateway.http.health import Health
from gateway.http.limits_page import show_limits
from gateway.http.login import Authorize
from gateway.http.metrics import Metrics
from gateway.http.oauth import OAuth
from gateway.http.refusing import ending
from gateway.http.sessions import Sessions
from gateway.http.socket import Sockets
from gateway.http.wire import JSON, NAME_ONE_HOST, names_one_host, respond
from gateway.jobs.jobs import Jobs
from gateway.jobs.work import Work
from gateway.ledger.post import Ledger
from gateway.ledger.prove import Prover
from gateway.members.lookup import MemberLookup
from gateway.parties import PARTY, STRANGERS
from gateway.schema import ACTIVITY, ACTIVITY_OF_ROWS, create_schema
from gateway.settings import Settings
from partners.protocols import PROTOCOLS

log = structlog.get_logger(__name__)

APP_REDIRECT = "com.example.loyalty:/callback"


class Gateway:
    """The ASGI application: GraphQL goes straight to its endpoint, everything else through the routes."""

    def __init__(
        self, graphql: GraphQLEndpoint, sockets: Sockets, pages: Starlette, jobs: Jobs, lasting: Sequence[Callable[[], None]]
    ) -> None:
        self._graphql, self._sockets, self._pages, self.jobs, self._lasting = graphql, sockets, secured(pages), jobs, lasting

    def end(self) -> None:
        """The process has to end soon: nothing that lasts is begun any more, and what lasts ends."""
        for end in self._lasting:
            end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        PARTY.set(None)  # what is pipelined begins in the context of the request before it
        try:
            if scope["type"] == "http" and scope["path"] == "/graphql":
                await self._graphql(scope, receive, send)
            elif scope["type"] == "http":
                await self._show(scope, receive, send)
            elif scope["type"] == "websocket":
                await self._sockets(scope, receive, send)
            else:
                await self._pages(scope, receive, send)
        except asyncio.CancelledError:
            if scope["type"] == "lifespan":
                raise
            # The process ends, and waits no longer for who is being answered.

    async def _show(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what is no GraphQL."""
        begun = False

        async def begin(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        if not names_one_host(scope):
            await respond({"error": NAME_ONE_HOST}, 400, JSON, {"Connection": "close"})(scope, receive, send)
            return
        PARTY.set(STRANGERS)
        try:
            await self._pages(scope, receive, begin)
        except asyncio.CancelledError:
            no = ending()
            if not begun:
                told = {"error": "temporarily_unavailable", "error_description": no.message}
                await respond(told, no.status, JSON, no.headers)(scope, receive, send)


async def create_app(settings: Settings, dsn: str, clock: Clock | None = None, engine: Engine | None = None) -> Gateway:
    """The gateway over a migrated database; gateways of one process can share an engine. Raises DatabaseAway,
    OfAnotherServer, BadSetting."""
    opened = contextlib.AsyncExitStack()  # closed when the gateway ends, or here, if it cannot begin
    try:
        return await _wire(settings, dsn, clock or SystemClock(), engine or Engine(create_schema()), opened)
    except BaseException:
        await opened.aclose()
        raise


async def _wire(settings: Settings, dsn: str, clock: Clock, engine: Engine, opened: contextlib.AsyncExitStack) -> Gateway:
    trusted = read_issuers(settings.issuers_file) if settings.issuers_file else []
    database = await opened.enter_async_context(Database(dsn, settings.pool_size))
    async with database.reading() as tx:
        await check_server(tx)
    # Of their own, so that no crowd at the pool delays what was revoked or who somebody is, or makes a process look dead that is
    # busy.
    watching = await opened.enter_async_context(Database(dsn, 1, WATCH_SECONDS))
    probing = await opened.enter_async_context(Database(dsn, 2))
    naming = Database(dsn, 2, WATCH_SECONDS)
    if trusted:
        await opened.enter_async_context(naming)
    vault = await open_vault(database, settings)
    audit = Audit(database, vault, clock)
    catalogue = Catalogue(database)
    connections = Connections(catalogue, PROTOCOLS)
    feed = Feed(database)
    ledger = Ledger(database, clock, settings.lanes, feed.posted)
    converter = Converter(database, catalogue, ledger, clock, connections)
    tokens = Tokens(settings.base_url, await load_signing_keys(database, vault, clock), clock)
    await read_again(watching, vault, tokens, clock)  # nobody is let in before it is known what was revoked
    jobs = Jobs(database, clock, Work(database, catalogue, converter, tokens).jobs(), settings.jobs)
    doors = Doors(
        database=database,
        clock=clock,
        catalogue=catalogue,
        members=MemberLookup(database),
        ledger=ledger,
        converter=converter,
        connections=connections,
        settlement_dir=settings.data_dir / "settlement",
        adjustment_limit=settings.adjustment_limit,
        partner_hosts=settings.partner_hosts,
        activity=ACTIVITY,
        activity_of_rows=ACTIVITY_OF_ROWS,
        feed=feed,
        audit=audit,
        vault=vault,
        jobs=jobs,
        prove=Prover(database).prove,
    )
    await _register_own_clients(database, settings.base_url, clock)
    metrics = Metrics(probing, ledger, tokens.revocations, clock)
    server = OAuthServer(tokens)
    budgets = Budgets(database)
    sessions = Sessions(database, audit, clock)
    authorize = Authorize(server, tokens, doors, vault, audit, budgets, sessions)
    fetcher = Fetcher(settings.jwks_hosts)
    issuers = OutsideIssuers(trusted, fetcher, naming, clock, tokens.revocations)
    oauth = OAuth(server, Clerk(tokens, database, clock, fetcher), tokens, database, budgets)
    doorman = Doorman(tokens, issuers, doors, settings.authorization_server == "on")
    graphql = GraphQLEndpoint(engine, doorman, doors, budgets)
    for each in (fetcher.close, connections.close, graphql.drain):  # the last one first
        opened.push_async_callback(each)

    routes = [
        Route("/", _home),
        *(_authorization_server(oauth, authorize, sessions) if settings.authorization_server == "on" else ()),
        Route("/ledger/keys", oauth.ledger_keys),
        *_health(Health(probing, tokens.revocations), metrics),
        Route("/limits", show_limits),
        *console_routes(),
    ]
    lifespan = _lifespan(opened, jobs, ledger, partial(follow, watching, vault, tokens, clock), feed.run, database.watch)
    pages = Starlette(lifespan=lifespan, exception_handlers={HTTPException: _json_error, 500: _json_failure}, routes=routes)
    pages.router.redirect_slashes = False  # a redirect would name whichever host the request does
    return Gateway(graphql, Sockets(graphql, doorman), pages, jobs, (graphql.end, jobs.end, converter.end))


def _lifespan(
    opened: contextlib.AsyncExitStack, jobs: Jobs, ledger: Ledger, *endless: Callable[[], Coroutine[Any, Any, None]]
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    """What runs besides the requests for as long as the gateway is up; at its end all that was `opened` is closed."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with opened:
            scheduled = asyncio.create_task(jobs.run())
            running = [scheduled, *(asyncio.create_task(each()) for each in endless)]
            try:
                yield
                jobs.end()
                running.append(asyncio.create_task(ledger.drain()))
                # What is begun is done, if it can be.
                await asyncio.wait([scheduled, running[-1]], timeout=patience.SHUTDOWN_SECONDS)
            finally:
                await patience.break_off(running)

    return lifespan


def _health(health: Health, metrics: Metrics) -> list[Route]:
    return [Route("/livez", health.live), Route("/readyz", health.ready), Route("/metrics", metrics.scrape)]


def _authorization_server(oauth: OAuth, authorize: Authorize, sessions: Sessions) -> list[Route]:
    return [
        Route("/oauth/authorize", authorize.authorize, methods=["GET", "POST"]),
        Route("/oauth/logout", sessions.logout, methods=["POST"]),
        Route("/oauth/token", oauth.token, methods=["POST"]),
        Route("/oauth/revoke", oauth.revoke, methods=["POST"]),
        Route("/oauth/introspect", oauth.introspect, methods=["POST"]),
        Route("/oauth/par", oauth.push, methods=["POST"]),
        Route("/oauth/jwks", oauth.jwks),
        Route("/.well-known/oauth-authorization-server", oauth.metadata),
    ]


async def _json_error(request: Request, error: Exception) -> Response:
    """What no route answers is told as JSON too."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _json_failure(request: Request, error: Exception) -> Response:
    """What went wrong here is logged, and told without its inside."""
    correlation_id = str(uuid.uuid4())
    log.error("unexpected error", correlation_id=correlation_id, path=request.url.path, exc_info=error)
    return JSONResponse({"error": f"Something unexpected happened; quote {correlation_id} when you report it."}, 500)


async def _home(request: Request) -> Response:
    return RedirectResponse("/graphiql", 303)


async def _register_own_clients(database: Database, base_url: str, clock: Clock) -> None:
    """The gateway's own public clients: the console, and a member app to begin with."""
    async with database.transaction() as tx:
        console = [f"{base_url}/graphiql"]
        await register_public_client(
            tx, CONSOLE_CLIENT, "The operators' console", console, sorted({**OPERATOR, **MEMBER}), False, clock.now()
        )
        await register_public_client(tx, APP_CLIENT, "The members' app", [APP_REDIRECT], sorted(MEMBER), True, clock.now())
