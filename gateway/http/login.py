"""The authorization endpoint: who logs in, what a member agrees to by that, and the code that the client gets for it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from datetime import datetime
from urllib.parse import urlencode

import orjson
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749.errors import InvalidRequestError
from starlette.requests import Request as HTTPRequest
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from gateway.access.accounts import LOGIN_MAX_LENGTH, Account, LoginLocked, account_named, check_login
from gateway.access.audit import Audit, Deed
from gateway.access.clerk import CLIENT_REFUSED, check_resource, sql
from gateway.access.consents import Consent, decide_alone, grant
from gateway.access.registration import CONSOLE_CLIENT, secret_hash
from gateway.access.registration import sql as registration_sql
from gateway.access.server import Desk, OAuthServer, Request, read_parameters
from gateway.access.tokens import Tokens
from gateway.access.vault import Vault
from gateway.coalition.catalogue import Coalition, NoCoalition
from gateway.context import Doors
from gateway.database import Row, Tx
from gateway.http.budget import SITE_BITS, Budgets, network_of
from gateway.http.errors import NOT_NOW
from gateway.http.headers import page_headers
from gateway.http.login_page import DEFAULT_PURPOSE, ask, digest_of_words, is_of_operators, try_again
from gateway.http.oauth import NO_STORE, PARAMETERS_MAX, REQUEST_URI_PREFIX, read_form
from gateway.http.refusing import RequestRefused
from gateway.http.sessions import Sessions, comes_from_elsewhere, session_cookie
from gateway.http.wire import address_of, query_pairs
from gateway.ids import show
from gateway.refusals import Refused

LOGINS_AT_ONCE = 2
LOGINS_WAITING, LOGINS_WAITING_OF_ONE = 100, 10
QUERY_MAX_BYTES = 8 * 1024
TOLD = {"invalid_client": CLIENT_REFUSED, "unsupported_response_type": "Ask with response_type=code."}
REFUSED = "The login name or the password is wrong."
CHANGED = "What is asked for has changed since this page was opened. Read it once more, and log in if you still allow it."
OPERATOR_REFUSED = "The login name, the password or the one-time code is wrong."


class Authorize:
    """/oauth/authorize."""

    def __init__(
        self, server: OAuthServer, tokens: Tokens, doors: Doors, vault: Vault, audit: Audit, budgets: Budgets,
        sessions: Sessions,
    ) -> None:  # fmt: skip
        self._server, self._tokens, self._doors, self._vault, self._audit = server, tokens, doors, vault, audit
        self._budgets, self._sessions = budgets, sessions
        # Passwords take long to check on purpose: whoever guesses many at once waits here, and holds no connections.
        self._gate = asyncio.Semaphore(LOGINS_AT_ONCE)
        self._waiting: Counter[str] = Counter()

    async def authorize(self, request: HTTPRequest) -> Response:
        """RFC 6749, section 3.1, with a plain login page; the console's own session saves it the form."""
        if request.method == "HEAD":  # which changes nothing, and who comes back with a session gets a code
            return Response(status_code=405, headers={"Allow": "GET, POST"})
        try:
            if len(request.scope["query_string"]) > QUERY_MAX_BYTES:
                raise InvalidRequestError(f"The address says more than {QUERY_MAX_BYTES} bytes; push the request (/oauth/par).")
            parameters = read_parameters(query_pairs(request, PARAMETERS_MAX))
            form = read_parameters(await read_form(request)) if request.method == "POST" else {}
            if form and comes_from_elsewhere(request):
                raise InvalidRequestError("The form was sent by another site's page.")
            if len(form.get("login", "")) > LOGIN_MAX_LENGTH:
                raise InvalidRequestError(f"A login name has {LOGIN_MAX_LENGTH} characters at most.")
            counts = request.method == "POST" or session_cookie(request) is not None  # both leave something behind
            seconds = await self._budgets.knock(address_of(request)) if counts else 0
            if seconds:
                told = f"Too many logins were tried from your address. Try again in {seconds} seconds."
                return HTMLResponse(told, 429, {**page_headers(""), "Retry-After": str(seconds)})
            coalition = await self._coalition()  # before a connection is held, and before anything is decided that must be kept
            deeds: list[Deed] = []
            async with self._turn(request), self._doors.database.transaction() as tx:
                response = await self._decide(request, tx, parameters, form, coalition, deeds)
                for deed in deeds:  # last of all: everybody waits for the end of the log
                    await self._audit.note_in(tx, deed)
            return response
        except OAuth2Error as error:
            return self._error(error)
        except RequestRefused as no:
            return self._error(InvalidRequestError(no.message))
        except NOT_NOW:
            return try_again()

    async def _decide(
        self, request: HTTPRequest, tx: Tx, parameters: dict[str, str], form: dict[str, str], coalition: Coalition | None,
        deeds: list[Deed],
    ) -> Response:  # fmt: skip
        """The answer to a request to authorize; what is to be noted is added to `deeds`. Raises OAuth2Error."""
        client = await tx.one(registration_sql.oauth_client, client_id=parameters.get("client_id", ""))
        if client is not None and client["partner_status"] == "suspended":
            client = None
        desk = Desk(self._doors.clock.now(), client)
        pushed = parameters.get("request_uri")
        if pushed is None and client is not None and (client["jwks"] or client["jwks_uri"]):
            # FAPI 2.0, section 5.3.2.2, of clients that authenticate as it asks.
            raise InvalidRequestError("This client pushes its requests first: /oauth/par.")
        if pushed is not None:
            parameters = await self._pushed(tx, desk, pushed)
        check_resource(parameters, self._tokens)
        grant = self._server.at(desk).get_consent_grant(Request("GET", parameters))
        assert client is not None
        account = await self._sessions.come_back(request, tx, client["client_id"], parameters, deeds)
        denied = form.get("decision") == "deny"
        if denied and pushed is not None:
            await tx.run(sql.use_pushed_request, request_hash=_hash(pushed), used_at=desk.now)
        agrees = form and not denied and client["partner_id"] is not None
        if agrees and form.get("told") != digest_of_words(coalition, client, parameters):
            return ask(coalition, client, parameters, form.get("login", ""), CHANGED, 409)
        if account is None and form and not denied:
            try:
                account = await self._log_in(tx, client, form, desk.now, deeds)
            except LoginLocked as locked:
                return ask(coalition, client, parameters, form.get("login", ""), str(locked), 429)
        if account is None and not denied:
            wrong = (OPERATOR_REFUSED if is_of_operators(client) else REFUSED) if form else ""
            return ask(coalition, client, parameters, form.get("login", ""), wrong, 401 if wrong else 200)
        if account is not None and client["partner_id"] is not None:
            try:
                desk.consent = await self._agree(tx, client, parameters, account, desk.now, deeds)
            except Refused as refused:
                return ask(coalition, client, parameters, form.get("login", ""), refused.message, 409)
        server = self._server.at(desk)
        grant.server = server
        server.create_authorization_response(grant.request, account, grant)
        if desk.new_code is not None:
            await tx.run(sql.store_authorization_code, **desk.new_code)
            if pushed is not None:
                await tx.run(sql.use_pushed_request, request_hash=_hash(pushed), used_at=desk.now)
        response = self._redirect(desk)
        if client["client_id"] == CONSOLE_CLIENT and form and account is not None:
            await self._sessions.begin(tx, response, account, session_cookie(request))
        return response

    @asynccontextmanager
    async def _turn(self, request: HTTPRequest) -> AsyncIterator[None]:
        """A turn at checking a password, or at the audit log, which holds who comes back with a session; who only asks for the
        page needs none. Raises OAuth2Error when too many wait."""
        if request.method != "POST":
            async with self._audit.turn() if session_cookie(request) is not None else nullcontext():
                yield
            return
        where = network_of(address_of(request), SITE_BITS)
        if self._waiting[where] >= LOGINS_WAITING_OF_ONE or self._waiting.total() >= LOGINS_WAITING:
            raise OAuth2Error(error="temporarily_unavailable", description="Too many log in at once; try again in a moment.")
        self._waiting[where] += 1
        try:
            async with self._gate:
                yield
        finally:
            self._waiting[where] -= 1
            if not self._waiting[where]:
                del self._waiting[where]

    async def _pushed(self, tx: Tx, desk: Desk, request_uri: str) -> dict[str, str]:
        """The parameters that the client pushed; nothing beside them counts. Raises OAuth2Error."""
        client_id = desk.client["client_id"] if desk.client is not None else ""
        row = await tx.one(sql.pushed_request, request_hash=_hash(request_uri), client_id=client_id, now=desk.now)
        if row is None:
            raise InvalidRequestError("The request_uri is unknown, was used, or has run out; push the request again.")
        parameters: dict[str, str] = orjson.loads(row["parameters"])
        return parameters

    def _redirect(self, desk: Desk) -> Response:
        _, body, headers = desk.answer
        location = dict(headers).get("Location")
        if location is None:
            return JSONResponse(body, 400, NO_STORE)
        # RFC 9207: the client learns which server answered.
        joint = "&" if "?" in location else "?"
        return RedirectResponse(f"{location}{joint}{urlencode({'iss': self._tokens.issuer})}", 303, NO_STORE)

    def _error(self, error: OAuth2Error) -> Response:
        """Back to the client if its redirect URI was checked, else a page: never to an address nobody registered."""
        body = dict(error.get_body())
        if body["error"] in TOLD:
            body["error_description"] = TOLD[body["error"]]
        if error.redirect_uri:
            joint = "&" if "?" in error.redirect_uri else "?"
            query = urlencode({**body, "iss": self._tokens.issuer})
            return RedirectResponse(f"{error.redirect_uri}{joint}{query}", 303, NO_STORE)
        return JSONResponse(body, 400, NO_STORE)

    async def _agree(
        self, tx: Tx, client: Row, parameters: dict[str, str], account: Account, now: datetime, deeds: list[Deed]
    ) -> Consent:
        """Keep what a member has agreed to by logging in on a page that said it."""
        assert account.member_id is not None
        asked = frozenset(parameters.get("scope", "").split())
        classes = frozenset(parameters.get("data_classes", "").split())
        evidence = {"given": "on the consent page", "account": str(account.account_id), "client": client["client_id"]}
        purpose = client["purpose"] or DEFAULT_PURPOSE
        consent = await grant(tx, account.member_id, client["partner_id"], purpose, asked, classes, evidence, now)
        details = {"consent": str(consent.id), "scopes": sorted(consent.scopes), "data_classes": sorted(consent.data_classes)}
        about = [show("mem", consent.member_id), show("cns", consent.id), show("ptn", consent.partner_id)]
        deeds.append(Deed("member", account.member_id, client["client_id"], "give consent", "ok", about=about, details=details))
        return consent

    async def _coalition(self) -> Coalition | None:
        try:
            return await self._doors.catalogue.current()
        except NoCoalition:
            return None

    async def _log_in(
        self, tx: Tx, client: Row, form: dict[str, str], now: datetime, deeds: list[Deed]
    ) -> Account | None:
        """The account behind a filled form, and what is to be noted of it. Raises LoginLocked."""
        login, code = form.get("login", ""), "".join(form.get("code", "").split())
        known, login_hash = await account_named(tx, self._vault, login)
        # What is no operator's may be somebody's address, and must be gone when that member is forgotten.
        is_operators = known is not None and known["kind"] == "operator"
        said = {"login": login} if is_operators else {"digest": login_hash.hex()}
        deed = Deed("nobody", None, client["client_id"], "log in", "ok", details=said)
        try:
            account = await check_login(tx, self._vault, login_hash, form.get("password", ""), code, now)
        except LoginLocked:
            deeds.append(replace(deed, result="LOCKED"))
            raise
        if account is None:
            deed = replace(deed, result="WRONG")
        elif not _is_for(client, account):
            deed, account = replace(deed, result="NOT_ITS_CLIENT"), None
        else:
            deed = replace(deed, actor_kind=account.kind, actor_id=account.member_id or account.account_id)
            if account.member_id is not None:
                await decide_alone(tx, account.member_id)
        deeds.append(deed)
        return account


def _is_for(client: Row, account: Account) -> bool:
    """Nobody but a member can allow a partner something in its own name, and the console is for operators."""
    if client["partner_id"] is not None:
        return account.kind == "member"
    return account.kind == "operator" or client["client_id"] != CONSOLE_CLIENT


def _hash(request_uri: str) -> bytes:
    return secret_hash(request_uri.removeprefix(REQUEST_URI_PREFIX))
