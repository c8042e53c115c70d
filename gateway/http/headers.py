"""What every page says to the browser about itself."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

COMMON = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=63072000",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def secured(app: ASGIApp) -> ASGIApp:
    """An application whose every answer carries COMMON, unless it says otherwise; no answer allows another origin (CORS)."""
    common = [(name.lower().encode(), value.encode()) for name, value in COMMON.items()]

    async def with_headers(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = {name for name, _ in message["headers"]}
                message = {**message, "headers": [*message["headers"], *(each for each in common if each[0] not in said)]}
            await send(message)

        await app(scope, receive, sending if scope["type"] == "http" else send)

    return with_headers


def page_headers(nonce: str) -> dict[str, str]:
    """Headers of a page without scripts, whose styles carry the nonce.

    Forms are not held to an address: the answer to a login leads to the client's own (CSP 3, `form-action`, follows redirects).
    """
    policy = f"default-src 'none'; style-src 'nonce-{nonce}'; frame-ancestors 'none'; base-uri 'none'"
    return {**COMMON, "Content-Security-Policy": policy}
