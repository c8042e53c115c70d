"""The pages of the authorization server: authorize with its login, and the console's session."""

import asyncio
import secrets
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode

import jinja2
import orjson
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749.errors import InvalidRequestError
from starlette.requests import Request as HTTPRequest
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from gateway.access.accounts import CONSOLE_CLIENT, Account, LoginLocked, check_password, secret_hash
from gateway.access.scopes import CATALOGUE
from gateway.access.server import Desk, OAuthServer, Request, read_parameters
from gateway.access.tokens import Tokens, sql
from gateway.coalition.catalogue import NoCoalition
from gateway.context import Doors
from gateway.database import DatabaseAway, Tx
from gateway.http.oauth import NO_STORE, REQUEST_URI_PREFIX, read_form

SESSION_COOKIE = "gateway_console"
SESSION_LIFETIME = timedelta(hours=8)
LOGINS_AT_ONCE = 2
PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
    Path(__file__).with_name("login.html").read_text()
)


class Login:
    """/oauth/authorize and /oauth/logout."""

    def __init__(self, server: OAuthServer, tokens: Tokens, doors: Doors) -> None:
        self._server, self._tokens, self._doors = server, tokens, doors
        # Passwords take long to check on purpose: whoever guesses many at once waits here, and holds no connections.
        self._gate = asyncio.Semaphore(LOGINS_AT_ONCE)

    async def authorize(self, request: HTTPRequest) -> Response:
        """RFC 6749, section 3.1, with a plain login page; the console's own session saves it the form."""
        try:
            parameters = read_parameters(list(request.query_params.multi_items()))
            form = read_parameters(await read_form(request)) if request.method == "POST" else {}
            async with self._gate, self._doors.database.transaction() as tx:
                client = await tx.one(sql.oauth_client, client_id=parameters.get("client_id", ""))
                desk = Desk(self._doors.clock.now(), client)
                pushed = parameters.get("request_uri")
                if pushed is not None:
                    parameters = await self._pushed(tx, desk, pushed)
                grant = self._server.at(desk).get_consent_grant(Request("GET", parameters))
                assert client is not None
                account = await self._session(request, tx, client["client_id"])
                if account is None and form:
                    try:
                        account = await check_password(tx, form.get("login", ""), form.get("password", ""), desk.now)
                    except LoginLocked as locked:
                        return await self._ask(client["name"], parameters, form.get("login", ""), str(locked), 429)
                if account is None:
                    wrong = "The login name or the password is wrong." if form else ""
                    return await self._ask(client["name"], parameters, form.get("login", ""), wrong, 401 if wrong else 200)
                server = self._server.at(desk)
                grant.server = server
                server.create_authorization_response(grant.request, account, grant)
                if desk.new_code is not None:
                    await tx.run(sql.store_authorization_code, **desk.new_code)
                    if pushed is not None:
                        await tx.run(sql.use_pushed_request, request_hash=_hash(pushed), used_at=desk.now)
                response = self._redirect(desk)
                if client["client_id"] == CONSOLE_CLIENT and form:
                    await self._remember(tx, response, account)
                return response
        except OAuth2Error as error:
            return self._error(error)
        except DatabaseAway:
            return HTMLResponse("The database does not answer. Try again in a moment.", 503, PAGE_HEADERS)

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
        if error.redirect_uri:
            joint = "&" if "?" in error.redirect_uri else "?"
            query = urlencode({**body, "iss": self._tokens.issuer})
            return RedirectResponse(f"{error.redirect_uri}{joint}{query}", 303, NO_STORE)
        if body.get("error") == "invalid_client":
            body["error_description"] = "The client could not be authenticated."
        return JSONResponse(body, 400, NO_STORE)

    async def _ask(self, client: str, parameters: dict[str, str], login: str, error: str, status: int) -> Response:
        try:
            coalition = (await self._doors.catalogue.current()).name
        except NoCoalition:
            coalition = "the loyalty gateway"
        scopes = parameters.get("scope", "").split()
        sentences = [CATALOGUE[scope] for scope in scopes if scope in CATALOGUE] or ["act for you"]
        page = _page.render(coalition=coalition, client=client, sentences=sentences, login=login, error=error)
        return HTMLResponse(page, status, PAGE_HEADERS)

    async def _session(self, request: HTTPRequest, tx: Tx, client_id: str) -> Account | None:
        cookie = request.cookies.get(SESSION_COOKIE)
        if cookie is None or client_id != CONSOLE_CLIENT:
            return None
        row = await tx.one(sql.console_session, session_hash=secret_hash(cookie), now=self._doors.clock.now())
        if row is None:
            return None
        account = await tx.one(sql.account_by_id, account_id=row["account_id"])
        return Account(account["account_id"], account["kind"], account["member_id"]) if account else None

    async def _remember(self, tx: Tx, response: Response, account: Account) -> None:
        cookie = secrets.token_urlsafe(32)
        expires_at = self._doors.clock.now() + SESSION_LIFETIME
        await tx.run(
            sql.store_console_session, session_hash=secret_hash(cookie), account_id=account.account_id, expires_at=expires_at
        )
        response.set_cookie(
            SESSION_COOKIE,
            cookie,
            max_age=int(SESSION_LIFETIME.total_seconds()),
            path="/oauth",
            secure=self._tokens.issuer.startswith("https://"),
            httponly=True,
            samesite="strict",
        )

    async def logout(self, request: HTTPRequest) -> Response:
        """End the console's session."""
        cookie = request.cookies.get(SESSION_COOKIE)
        if cookie is not None:
            async with self._doors.database.reading() as tx:
                await tx.run(sql.end_console_session, session_hash=secret_hash(cookie))
        response = Response(status_code=204)
        response.delete_cookie(SESSION_COOKIE, path="/oauth")
        return response


def _hash(request_uri: str) -> bytes:
    return secret_hash(request_uri.removeprefix(REQUEST_URI_PREFIX))
