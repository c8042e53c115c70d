"""GraphiQL, served by us from the build of `console/`."""

import secrets
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

PACKAGED = Path(__file__).parent.parent / "_console"
CHECKED_OUT = Path(__file__).parent.parent.parent / "console" / "dist"
# GraphiQL's editor writes its styles into the page as it goes, which no nonce can be given to; scripts are our own files.
POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}' 'strict-dynamic'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'"
)


class Assets(StaticFiles):
    """Files whose names change with what is in them."""

    def file_response(self, *given: Any, **named: Any) -> Response:
        response = super().file_response(*given, **named)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def console_routes() -> list[Route | Mount]:
    """`/graphiql` and its files; a page that says how to build it where it has not been built."""
    folder = PACKAGED if PACKAGED.exists() else CHECKED_OUT

    async def page(request: Request) -> Response:
        index = folder / "index.html"
        if not index.exists():
            return PlainTextResponse("GraphiQL is not built yet: run `make console`.", 503)
        nonce = secrets.token_urlsafe(16)
        text = index.read_text()
        for tag in ("<script ", '<link rel="modulepreload" '):
            text = text.replace(tag, f'{tag}nonce="{nonce}" ')
        return HTMLResponse(text, headers={"Content-Security-Policy": POLICY.format(nonce=nonce)})

    built = [Mount("/graphiql/assets", Assets(directory=folder / "assets"))] if (folder / "assets").is_dir() else []
    return [Route("/graphiql", page), *built]
