"""The console's session: a cookie that saves an operator the form, at the authorization endpoint and nowhere else."""

import re
import secrets
from datetime import timedelta

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from gateway.access.accounts import Account, Login, account_of, end_codes, revoke_subject
from gateway.access.accounts import sql as account_sql
from gateway.access.audit import Audit, Deed
from gateway.access.registration import CONSOLE_CLIENT, secret_hash
from gateway.addresses import split_address
from gateway.clock import Clock
from gateway.database import Database, Tx
from gateway.http.errors import NOT_NOW
from gateway.http.login_page import try_again
from gateway.statements import load_queries

sql = load_queries(__file__, "sessions.sql")

SESSION_COOKIE = "__Host-gateway_console"  # sent by the browser to this host alone, over TLS (or the loopback)
SESSION_LIFETIME = timedelta(hours=8)
# A browser keeps fewer for one site.
COOKIES_MAX = 200


class Sessions:
    """Begins sessions, knows who comes back with one, and ends them: /oauth/logout."""

    def __init__(self, database: Database, audit: Audit, clock: Clock) -> None:
        self._database, self._audit, self._clock = database, audit, clock

    async def come_back(
        self, request: HTTPRequest, tx: Tx, client_id: str, parameters: dict[str, str], deeds: list[Deed]
    ) -> Account | None:
        """The operator whose console this is, unless a new login is asked for (`prompt`, `max_age`: OpenID Connect)."""
        cookie = session_cookie(request)
        asked_anew = request.method == "POST" or "login" in parameters.get("prompt", "").split()
        if cookie is None or client_id != CONSOLE_CLIENT or asked_anew:
            return None
        now = self._clock.now()
        row = await tx.one(sql.console_session, session_hash=secret_hash(cookie), now=now)
        if row is None or now - row["authenticated_at"] > _longest(parameters):
            return None
        account = await tx.one(account_sql.account_by_id, account_id=row["account_id"])
        if account is None:
            return None
        deeds.append(Deed("operator", row["account_id"], client_id, "come back with a session", "ok"))
        return account_of(account, Login(row["authenticated_at"], row["strong"]))

    async def begin(self, tx: Tx, response: Response, account: Account, before: str | None) -> None:
        """Begin a session, in place of the one that the browser has."""
        if before is not None:
            await tx.value(sql.end_console_session, session_hash=secret_hash(before))
        cookie = secrets.token_urlsafe(32)
        expires_at = self._clock.now() + SESSION_LIFETIME
        assert account.login is not None
        await tx.run(
            sql.store_console_session,
            session_hash=secret_hash(cookie),
            account_id=account.account_id,
            expires_at=expires_at,
            authenticated_at=account.login.at,
            strong=account.login.strong,
        )
        response.set_cookie(
            SESSION_COOKIE,
            cookie,
            max_age=int(SESSION_LIFETIME.total_seconds()),
            path="/",
            secure=True,
            httponly=True,
            samesite="strict",
        )

    async def logout(self, request: HTTPRequest) -> Response:
        """End the console's session, and the tokens that its operator has by now."""
        cookie = session_cookie(request)
        if cookie is None:
            return Response(status_code=204)
        try:
            async with self._audit.turn(), self._database.transaction() as tx:
                account_id = await tx.value(sql.end_console_session, session_hash=secret_hash(cookie))
                if account_id is not None:
                    await end_codes(tx, account_id, self._clock.now())
                    await revoke_subject(tx, account_id, self._clock.now())
                    await self._audit.note_in(tx, Deed("operator", account_id, CONSOLE_CLIENT, "log out", "ok"))
        except NOT_NOW:
            return try_again()
        response = Response(status_code=204)
        response.delete_cookie(SESSION_COOKIE, path="/", secure=True, httponly=True)
        return response


def session_cookie(request: HTTPRequest) -> str | None:
    """The session that a browser sends for our own pages; none where another page asks, be it on another port of this host, which
    has the same cookies. Nothing else is read of them: Python's own reading of quoted ones takes a time that grows with the
    square of their length (CVE-2024-7592). A browser lets nobody else set a name that begins with `__Host-`, but some that
    Python's `strip` makes into one; and of two that have it one is somebody else's."""
    headers = request.headers.getlist("cookie")
    if comes_from_elsewhere(request) or sum(header.count(";") for header in headers) > COOKIES_MAX:
        return None
    pairs = (pair.strip(" \t").partition("=") for header in headers for pair in header.split(";"))
    found = [value for name, _, value in pairs if name == SESSION_COOKIE]
    return found[0] if len(found) == 1 and re.fullmatch(r"[\w-]{1,100}", found[0], re.ASCII) else None


def comes_from_elsewhere(request: HTTPRequest) -> bool:
    """Whether a browser says that another site's or port's page asks this (Fetch Metadata; before it, `Origin`)."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        return site not in ("same-origin", "none")
    try:
        return origin is not None and split_address(origin).netloc != request.headers.get("host")
    except ValueError:
        return True


def _longest(parameters: dict[str, str]) -> timedelta:
    """How long ago a login may have been (`max_age`, seconds); one that cannot be read asks for a new one."""
    if "max_age" not in parameters:
        return timedelta.max
    seconds = parameters["max_age"]
    return timedelta(seconds=int(seconds[:9])) if seconds.isascii() and seconds.isdigit() else timedelta(-1)
