"""The login page: it says who asks, for what, and what a partner will see and do."""

import hashlib
import secrets
from pathlib import Path
from typing import Any

import jinja2
import orjson
from starlette.responses import HTMLResponse, Response

from gateway.access.consents import DATA_CLASSES
from gateway.access.registration import CONSOLE_CLIENT
from gateway.access.scopes import CATALOGUE, DELEGABLE, OPERATOR
from gateway.coalition.catalogue import Coalition
from gateway.database import Row
from gateway.http.headers import page_headers

DEFAULT_PURPOSE = "to serve you with your points"
_page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
    Path(__file__).with_name("login.html").read_text()
)


def ask(coalition: Coalition | None, client: Row, parameters: dict[str, str], login: str, error: str, status: int) -> Response:
    """The page for a client's request, with the login that was typed and what was wrong with it."""
    nonce = secrets.token_urlsafe(16)
    page = _page.render(
        **_words(coalition, client, parameters),
        told=digest_of_words(coalition, client, parameters),
        login=login,
        error=error,
        of_operators=is_of_operators(client),
        nonce=nonce,
    )
    return HTMLResponse(page, status, page_headers(nonce))


def _words(coalition: Coalition | None, client: Row, parameters: dict[str, str]) -> dict[str, Any]:
    """What the page says of who asks, and for what."""
    partner = coalition.partners.get(client["partner_id"]) if coalition is not None else None
    asked = list(dict.fromkeys(parameters.get("scope", "").split()))
    # An app that asks for nothing in particular gets all that it may have, and the page says so.
    scopes = asked or (client["scopes"] if client["client_id"] != CONSOLE_CLIENT and client["partner_id"] is None else [])
    of_partner = client["partner_id"] is not None
    shown = [scope for scope in scopes if scope in (DELEGABLE if of_partner else CATALOGUE)]
    classes = [each for each in DATA_CLASSES if of_partner and each in parameters.get("data_classes", "").split()]
    return {
        "coalition": coalition.name if coalition is not None else "the loyalty gateway",
        "client": partner.name if partner is not None else client["name"],
        "sentences": [CATALOGUE[scope] for scope in shown] or ([] if classes else ["log you in"]),
        "sees": [DATA_CLASSES[each] for each in classes],
        "purpose": (client["purpose"] or DEFAULT_PURPOSE) if of_partner else None,
    }


def digest_of_words(coalition: Coalition | None, client: Row, parameters: dict[str, str]) -> str:
    """SHA-256, in hex, of what the page says: whoever agrees sends it back, and agrees to nothing that it did not say."""
    return hashlib.sha256(orjson.dumps(_words(coalition, client, parameters), option=orjson.OPT_SORT_KEYS)).hexdigest()


def is_of_operators(client: Row) -> bool:
    """Whether operators log in with a client, who need a one-time code."""
    return client["partner_id"] is None and not OPERATOR.keys().isdisjoint(client["scopes"])


def try_again() -> Response:
    """What a person is told while the database is away or busy."""
    told = "The gateway is busy, or its database away. Try again in a moment."
    return HTMLResponse(told, 503, {**page_headers(""), "Retry-After": "2"})
