"""An airline's account system that speaks `rest_json` and keeps its balances in SQLite.

Faults are ordered over the wire with `PUT /faults`: `{"mode": "refuse" | "silent" | "lose_answer" | "drip" | "bomb" | "none",
"times": n}`, so that a test can see what the gateway makes of them. The last two spoil balances: they come a byte at a time, or
as a little that unpacks to much.
"""

import asyncio
import sqlite3
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

SCHEMA = """
create table if not exists credit (
  reference text primary key,
  account text not null,
  points integer not null check (points > 0)
)
"""


async def _drip() -> AsyncIterator[bytes]:
    while True:
        yield b" "
        await asyncio.sleep(0.2)


def _bomb() -> bytes:
    packing = zlib.compressobj()
    return b"".join(packing.compress(b" " * (1 << 20)) for _ in range(64)) + packing.compress(b'{"balance": 1}') + packing.flush()


class Airline:
    """Accounts and their credits; a reference credits once."""

    def __init__(self, file: Path) -> None:
        self._database = sqlite3.connect(file, isolation_level=None)
        self._database.execute("pragma journal_mode = wal")
        self._database.execute(SCHEMA)
        self._fault, self._times = "none", 0

    def balance(self, account: str) -> int:
        row = self._database.execute("select coalesce(sum(points), 0) from credit where account = ?", (account,)).fetchone()
        return int(row[0])

    async def read(self, request: Request) -> Response:
        account = request.path_params["account"]
        if self._fault == "drip":
            return StreamingResponse(_drip(), media_type="application/json")
        if self._fault == "bomb":
            return Response(_bomb(), headers={"Content-Encoding": "deflate"}, media_type="application/json")
        return JSONResponse({"account": account, "balance": self.balance(account)})

    async def credit(self, request: Request) -> Response:
        account, reference = request.path_params["account"], request.path_params["reference"]
        points = (await request.json()).get("points")
        if not isinstance(points, int) or points <= 0:
            return JSONResponse({"error": f"points is {points!r}"}, 422)
        fault = self._next_fault()
        if fault == "refuse":
            return JSONResponse({"error": f"account {account} is closed"}, 409)
        if fault == "silent":
            return JSONResponse({"error": "maintenance"}, 503)
        self._database.execute(
            "insert into credit (reference, account, points) values (?, ?, ?) on conflict do nothing",
            (reference, account, points),
        )
        if fault == "lose_answer":
            return JSONResponse({"error": "the line broke"}, 502)
        return JSONResponse({"reference": f"SKY-{reference[-12:]}", "balance": self.balance(account)})

    async def order_fault(self, request: Request) -> Response:
        body = await request.json()
        self._fault, self._times = body["mode"], body.get("times", 1)
        await asyncio.sleep(0)
        return Response(status_code=204)

    def _next_fault(self) -> str:
        if self._times == 0:
            return "none"
        self._times -= 1
        return self._fault


def create_airline(file: Path) -> Starlette:
    """The simulated airline over the accounts in `file`."""
    airline = Airline(file)
    return Starlette(
        routes=[
            Route("/accounts/{account}", airline.read),
            Route("/accounts/{account}/credits/{reference}", airline.credit, methods=["PUT"]),
            Route("/faults", airline.order_fault, methods=["PUT"]),
        ]
    )
