"""Issuers of tokens and publishers of keys that are not the gateway."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import Route

from tests.access.test_clients import CLIENTS, ROOT
from tests.access.test_keys import proof
from tests.world import World, serving


@contextlib.asynccontextmanager
async def provider(port: int, audience: str) -> AsyncIterator[None]:
    command = [sys.executable, str(ROOT / "console/node.py"), "node", "provider.mjs", str(port), audience]
    process = await asyncio.create_subprocess_exec(*command, cwd=CLIENTS, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, start_new_session=True)
    assert process.stdout
    assert b"ready" in await asyncio.wait_for(process.stdout.readuntil(b"ready"), 30)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def trusting(folder: Path, url: str, audience: str, **changes: str) -> Path:
    said = {
        "issuer": f'"{url}"', "audience": f'"{audience}"', "algorithms": '["RS256"]', "kind": '"partner"',
        "ceiling": '["partner", "points:earn"]', "claims": '{ subject = "client_id" }', **changes,
    }  # fmt: skip
    file = folder / "issuers.toml"
    file.write_text("[[issuer]]\n" + "\n".join(f"{name} = {value}" for name, value in said.items()) + "\n")
    return file


async def link(world: World, issuer: str, subject: str, code: str) -> None:
    partner = (await world.sql("select partner_id from partner where code = $1", code))[0][0]
    await world.sql("insert into outside_identity values ($1, $2, 'partner', $3, now())", issuer, subject, partner)


async def token_of(url: str, client: str, key: ECKey | None = None, **changes: str) -> str:
    form = {"grant_type": "client_credentials", "scope": "partner points:earn members:lookup settlement:close", **changes}
    headers = {"DPoP": proof(key, f"{url}/token", iat=int(time.time()))} if key is not None else {}
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(f"{url}/token", data=form, auth=(client, f"{client}-secret"), headers=headers)
    token: str = answer.json()["access_token"]
    return token


def forge(issuer: str, audience: str, key_id: str) -> str:
    key = ECKey.generate_key("P-256", {"kid": key_id}, private=True)
    claims = {"iss": issuer, "aud": audience, "client_id": "till-1", "exp": 4_000_000_000, "scope": "partner"}
    return jwt.encode({"alg": "ES256", "typ": "at+jwt", "kid": key_id}, claims, key, algorithms=["ES256"])


class Publisher:
    """An address with keys, which can be away."""

    def __init__(self) -> None:
        self.keys: list[Any] = []
        self.away, self.asked = False, 0

    async def answer(self, request: Request) -> JSONResponse:
        self.asked += 1
        if self.away:
            return JSONResponse({}, 503)
        return JSONResponse({"keys": [key.as_dict(private=False) for key in self.keys]})


@contextlib.asynccontextmanager
async def publishing(publisher: Publisher) -> AsyncIterator[str]:
    async with serving(Starlette(routes=[Route("/keys", publisher.answer), Route("/moved", moved)])) as (url, *_):
        yield url


async def moved(request: Request) -> Any:
    return RedirectResponse("/keys")
