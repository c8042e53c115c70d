"""GraphQL over HTTP on the wire: what a request says, read with care, and how an answer is said.

https://graphql.github.io/graphql-over-http/draft/
"""

import asyncio
from collections.abc import Callable
from types import NoneType
from typing import Any

import orjson
from graphql import ExecutionResult
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.access.caller import PUBLIC, Caller
from gateway.forms import pairs_of
from gateway.http import patience
from gateway.http.headers import COMMON
from gateway.http.refusing import RequestRefused

BODY_MAX_BYTES = 4 * 1024 * 1024
# Of a member's own app, which sends the id of a document and what it is about.
MEMBERS_BODY_MAX_BYTES = 64 * 1024
SMALL_BODY_BYTES = 8 * 1024
PARTS_MAX = 60_000
NAME_ONE_HOST = "Name one host: the Host header."
QUERY_PAIRS_MAX = 10
# Media types of an Accept header that are looked at.
ACCEPTED_MAX = 50
# About what a name with its value, an item of a list, and a list or an object itself take in memory.
NAME_BYTES, ITEM_BYTES, PART_WEIGHT = 130, 60, 100
# What one letter beyond Unicode's first 65,536 makes of each letter of its text.
WIDE_BYTES = 4
PART_BYTES = 256 * 1024
# An answer of more counts until its reader has it.
COUNTED_BYTES = 16 * 1024
JSON = "application/json"
GRAPHQL_JSON = "application/graphql-response+json"
EVENT_STREAM = "text/event-stream"

_KINDS = (
    ("documentId", (str, NoneType)),
    ("operationName", (str, NoneType)),
    ("variables", (dict, NoneType)),
    ("extensions", (dict, NoneType)),
)


def check_parts(text: bytes, most: int) -> None:
    """Raises RequestRefused for a text of more lists and objects than are read: each takes far more memory than it has bytes."""
    parts = text.count(b"[") + text.count(b"{")
    if parts > most:
        raise RequestRefused(413, "BODY_TOO_LARGE", f"The body has {parts} lists and objects; {most} at most are read.")


def weight_of(text: bytes) -> int:
    """About how many bytes a JSON text takes once it is read: up to fifty times as many as it has."""
    letters = len(text) if text.isascii() and b"\\u" not in text else WIDE_BYTES * len(text)
    parts = text.count(b"[") + text.count(b"{")
    return letters + NAME_BYTES * text.count(b":") + ITEM_BYTES * text.count(b",") + PART_WEIGHT * parts


def names_one_host(scope: Scope) -> bool:
    """Whether a request says for which host it is (RFC 9112, section 3.2); before HTTP/1.1 none had to."""
    hosts = [name for name, _ in scope["headers"]].count(b"host")
    return hosts == 1 or (hosts == 0 and scope["http_version"] == "1.0")


def check_head(request: Request) -> None:
    """Raises RequestRefused for a request whose host, method or type says already that it will not do."""
    if not names_one_host(request.scope):
        raise RequestRefused(400, "BAD_REQUEST", NAME_ONE_HOST, {"Connection": "close"})
    if request.method == "GET":
        return
    if request.method != "POST":
        told = "Send GraphQL requests with POST, or queries with GET."
        raise RequestRefused(405, "METHOD_NOT_ALLOWED", told, {"Allow": "GET, POST"})
    kinds = request.headers.getlist("content-type")
    kind, _, parameters = (kinds[0] if len(kinds) == 1 else "").lower().partition(";")
    if kind.strip() != JSON or ("charset" in parameters and "utf-8" not in parameters):
        raise RequestRefused(415, "UNSUPPORTED_MEDIA_TYPE", "Send the request as application/json, in UTF-8.")
    if any(coding.lower() != "identity" for coding in request.headers.getlist("content-encoding")):
        raise RequestRefused(415, "UNSUPPORTED_MEDIA_TYPE", "Send the body as it is, without a content encoding.")


def announced_bytes(request: Request, most: int) -> int | None:
    """How long a request says that its body is; None where it comes in chunks. Raises RequestRefused beyond `most`."""
    said = request.headers.get("content-length")
    if said is not None and int(said) > most:
        raise _too_large(most)
    return int(said) if said is not None else None


async def read_body(request: Request, most: int, holding: Callable[[int], None]) -> bytes:
    """What a POST holds, `most` bytes.

    `holding` is told of every further byte of what is not small. Raises RequestRefused, and what `holding` does.
    """
    body = bytearray()
    told_of = 0
    try:
        async with asyncio.timeout(patience.BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise _too_large(most)
                if len(body) > SMALL_BODY_BYTES:
                    holding(len(body) - told_of)
                    told_of = len(body)
    except TimeoutError:
        told = f"The body was not there within {patience.BODY_SECONDS} seconds."
        raise RequestRefused(408, "BODY_TOO_SLOW", told, {"Connection": "close"}) from None
    return bytes(body)


def _too_large(most: int) -> RequestRefused:
    return RequestRefused(413, "BODY_TOO_LARGE", f"The body is larger than {most} bytes.")


def read_request(body: bytes) -> dict[str, Any]:
    """A body's query, variables and operationName. Raises RequestRefused."""
    check_parts(body, PARTS_MAX)
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestRefused(400, "BAD_REQUEST", f"The body is not JSON: {error}.") from None
    if not isinstance(asked, dict):
        raise RequestRefused(400, "BAD_REQUEST", "The body must be a JSON object with a query.")
    return _check_kinds(asked)


def query_pairs(request: HTTPConnection, most: int) -> list[tuple[str, str]]:
    """The names and values of a query string. Raises RequestRefused beyond `most`: each takes more memory than it has bytes."""
    try:
        return pairs_of(request.scope["query_string"].decode("latin-1"), most)
    except ValueError as error:
        raise RequestRefused(400, "BAD_REQUEST", f"The query string {error}") from None


def texts_of(request: Request) -> dict[str, str]:
    """What a GET's query string holds. Raises RequestRefused."""
    texts: dict[str, str] = {}
    for name, text in query_pairs(request, QUERY_PAIRS_MAX):
        if name in texts:
            raise RequestRefused(400, "BAD_REQUEST", f"{name[:80]} is there twice.")
        texts[name] = text
    return texts


def read_query(texts: dict[str, str]) -> dict[str, Any]:
    """The request in a query string, where variables and extensions are JSON texts. Raises RequestRefused."""
    asked: dict[str, Any] = dict(texts)
    for name in ("variables", "extensions"):
        if name in texts:
            try:
                asked[name] = orjson.loads(texts[name])
            except orjson.JSONDecodeError as error:
                raise RequestRefused(400, "BAD_REQUEST", f"{name} is not JSON: {error}.") from None
    return _check_kinds(asked)


def _check_kinds(asked: dict[str, Any]) -> dict[str, Any]:
    query, named = asked.get("query"), asked.get("documentId") is not None
    # Some clients send an empty query beside the id of a registered document.
    if query not in (None, "") if named else not isinstance(query, str):
        raise RequestRefused(400, "BAD_REQUEST", "Send one of query, a text, and documentId.")
    for name, kinds in _KINDS:
        if not isinstance(asked.get(name), kinds):
            raise RequestRefused(400, "BAD_REQUEST", f"{name} is missing or not of its type.")
    return asked


def negotiate(accept: str | None) -> str:
    """The media type of the answer: the specification's own where it is named first or alone."""
    for part in (accept or "").split(",", ACCEPTED_MAX):
        media_type = part.partition(";")[0].strip().lower()
        if media_type in (GRAPHQL_JSON, JSON, EVENT_STREAM):
            return media_type
        if media_type == "application/*":
            return GRAPHQL_JSON
    return JSON


def plain_type(media_type: str) -> str:
    """How a refusal is told to somebody who would have had a stream."""
    return GRAPHQL_JSON if media_type == EVENT_STREAM else media_type


class Answer(Response):
    """An answer that is not small is handed over in parts, each once the one before has left; `reader` is who has it to read
    until then."""

    reader: Caller = PUBLIC

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if len(self.body) <= COUNTED_BYTES:
            await super().__call__(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for start in range(0, len(self.body), PART_BYTES):
            part = bytes(self.body[start : start + PART_BYTES])
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def respond(body: dict[str, Any], status: int, media_type: str, headers: dict[str, str] | None = None) -> Answer:
    return Answer(
        orjson.dumps(body),
        status,
        {
            **COMMON,
            "Content-Type": f"{media_type}; charset=utf-8",
            **(headers or {}),
        },
    )


def was_executed(result: ExecutionResult) -> bool:
    """Whether anything of an operation was executed: errors without a path, and no data, come from before it."""
    return not (result.data is None and result.errors and all(error.path is None for error in result.errors))


def shown(result: ExecutionResult, executed: bool = True) -> dict[str, Any]:
    """A result as JSON; without `data` if nothing was executed."""
    body: dict[str, Any] = {}
    if result.errors:
        body["errors"] = [error.formatted for error in result.errors]
    if executed:
        body["data"] = result.data
    if result.extensions:
        body["extensions"] = result.extensions
    return body


def address_of(request: HTTPConnection) -> str:
    """From where somebody calls: as the socket says it, or a proxy that is trusted."""
    return request.client.host if request.client else ""
