"""GET /limits: what can be asked for, in words."""

import secrets
from pathlib import Path

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from gateway.batching import BATCH_MAX
from gateway.events.feed import FOLLOWERS_MAX, UNREAD_MAX
from gateway.http import cost, patience, shape, socket
from gateway.http.admission import BYTES_FOR_A_POINT, READING_COST
from gateway.http.budget import PLANS, PUSHES, STRANGERS
from gateway.http.deeds import NOTED_AT_ONCE_BYTES, NOTING_COST
from gateway.http.endpoint import ANSWER_MAX_BYTES, STREAMED_MAX_BYTES
from gateway.http.engine import DOCUMENT_MAX_CHARS, TOKENS_MAX
from gateway.http.headers import page_headers
from gateway.http.login import LOGINS_WAITING_OF_ONE
from gateway.http.patient_socket import CONTROL_FRAMES_A_SECOND, FRAMES_A_SECOND
from gateway.http.shares import (
    HELD_MAX_WEIGHT,
    MEMBERS_HELD_MAX_WEIGHT,
    MEMBERS_UNREAD_MAX_BYTES,
    MUTATIONS_AT_ONCE,
    QUERIES_AT_ONCE,
    REQUEST_MAX_WEIGHT,
    UNREAD_MAX_BYTES,
)
from gateway.http.wire import BODY_MAX_BYTES, MEMBERS_BODY_MAX_BYTES, PARTS_MAX, QUERY_PAIRS_MAX, SMALL_BODY_BYTES
from gateway.pages import PAGE_MAX

_KEPT_BY = {"member": "member", "operator": "person", "partner": "client"}
_page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
    Path(__file__).with_name("limits.html").read_text()
)


_DOCUMENTS = [
    ("items of a batch", f"{BATCH_MAX:,}"),
    ("body", f"{BODY_MAX_BYTES // 1024 // 1024} MiB"),
    ("body of a member's own app", f"{MEMBERS_BODY_MAX_BYTES // 1024} KiB"),
    ("lists and objects of a body", f"{PARTS_MAX:,}"),
    ("names in a query string", QUERY_PAIRS_MAX),
    ("headers of a request", patience.HEADERS_MAX),
    ("characters", f"{DOCUMENT_MAX_CHARS:,}"),
    ("tokens", f"{TOKENS_MAX:,}"),
    ("levels", shape.DEPTH_MAX),
    ("times that a document asks for one field in one place", shape.REPEATS_MAX),
    ("operations", shape.OPERATIONS_MAX),
    ("fragments, each of them spread somewhere", shape.FRAGMENTS_MAX),
    ("other names for fields", shape.ALIASES_MAX),
    ("directives", shape.DIRECTIVES_MAX),
    ("selections, with fragments where they are spread", f"{shape.SELECTIONS_MAX:,}"),
    ("characters of a name", shape.NAME_MAX),
    ("cost of an operation", f"{cost.COST_MAX:,}"),
    ("size of an answer of a query", f"{ANSWER_MAX_BYTES // 1024 // 1024} MiB"),
    ("items of a page", f"{PAGE_MAX:,}"),
    ("seconds of a query", patience.QUERY_SECONDS),
    *((f"queries at once of less than {points:,} points", most) for points, most in QUERIES_AT_ONCE),
    *((f"mutations at once of less than {points:,} points", most) for points, most in MUTATIONS_AT_ONCE),
]
_CONNECTIONS = [
    ("WebSockets from one address", socket.SOCKETS_OF_ONE),
    ("logins and unauthenticated pushes from one address", STRANGERS.maximum),
    ("of these come back a second", STRANGERS.restore_rate),
    ("pushed requests with authentication from one address", f"{PUSHES.maximum:,}"),
    ("of these come back a second", PUSHES.restore_rate),
    ("logins from one address that wait at once", LOGINS_WAITING_OF_ONE),
    ("seconds until the headers of a request are there", patience.HEADER_SECONDS),
    ("seconds until its body is there", patience.BODY_SECONDS),
    ("operations at once over one WebSocket", socket.OPERATIONS_MAX),
    ("messages a second", socket.MESSAGES_A_SECOND),
    ("frames a second", FRAMES_A_SECOND),
    ("pings and pongs a second", CONTROL_FRAMES_A_SECOND),
    ("lists and objects of a message", f"{socket.MESSAGE_PARTS_MAX:,}"),
    ("size of an answer over a WebSocket or a stream", f"{STREAMED_MAX_BYTES // 1024} KiB"),
    ("memory of one request, with its names and items", f"{REQUEST_MAX_WEIGHT // 1024 // 1024} MiB"),
    ("memory of one caller's requests that are not answered", f"{HELD_MAX_WEIGHT // 1024 // 1024} MiB"),
    ("the same of a member", f"{MEMBERS_HELD_MAX_WEIGHT // 1024 // 1024} MiB"),
    ("bytes of answers that one caller has not read", f"{UNREAD_MAX_BYTES // 1024 // 1024} MiB"),
    ("the same of a member", f"{MEMBERS_UNREAD_MAX_BYTES // 1024 // 1024} MiB"),
    ("requests that wait behind one", patience.PIPELINED_MAX),
    ("size of a message", f"{socket.MESSAGE_MAX_BYTES // 1024} KiB"),
    ("seconds until connection_init", socket.INIT_SECONDS),
    ("seconds without an operation", socket.IDLE_SECONDS),
    ("subscriptions of one member", FOLLOWERS_MAX),
    ("events that wait to be read", UNREAD_MAX),
    ("seconds in which an answer must be read on", patience.UNREAD_SECONDS),
]


async def show_limits(request: Request) -> Response:
    """The page."""
    nonce = secrets.token_urlsafe(16)
    points = sorted(set(cost.WEIGHTS.values()))
    dearer = [(sorted(name for name, weight in cost.WEIGHTS.items() if weight == each), each) for each in points]
    plans = [(kind, plan, _KEPT_BY[kind]) for kind, plan in PLANS.items()]
    page = _page.render(
        plans=plans, documents=_DOCUMENTS, connections=_CONNECTIONS, dearer=dearer, list_size=cost.LIST_SIZE,
        connection=cost.CONNECTION, bytes_for_a_point=BYTES_FOR_A_POINT, small_body=SMALL_BODY_BYTES // 1024,
        reading=READING_COST, noting=f"{NOTING_COST:,}", noted=NOTED_AT_ONCE_BYTES // 1024, told=shape.TOLD_MAX, nonce=nonce,
    )  # fmt: skip
    return HTMLResponse(page, headers=page_headers(nonce))
