"""GraphiQL, served by us from the build of `console/`."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

PACKAGED = Path(__file__).parent.parent / "_console"
CHECKED_OUT = Path(__file__).parent.parent.parent / "console" / "dist"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
        "worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def console_routes() -> list[Route | Mount]:
    """`/graphiql` and its files; a page that says how to build it where it has not been built."""
    folder = PACKAGED if PACKAGED.exists() else CHECKED_OUT

    async def page(request: Request) -> Response:
        index = folder / "index.html"
        if not index.exists():
            return PlainTextResponse("GraphiQL is not built yet: run `make console`.", 503)
        return FileResponse(index, headers=HEADERS)

    files = StaticFiles(directory=folder / "assets", check_dir=False)
    return [Route("/graphiql", page), Mount("/graphiql/assets", files)]
