"""Kills the gateway and PostgreSQL at random moments under load, again and again, and holds the ledger to its word.

    python benchmarks/faults.py [ROUNDS] [SEED]

Each round posts purchases, returns, redemptions, their reversals, holds and captures over HTTP, kills a process with SIGKILL,
waits until the gateway is ready again, and sends every request of the round again with its key. Then every request that was
answered must give its first answer, and be in the ledger once; at the end every invariant must hold. Prints a line a round;
ends with 1 on the first breach.
"""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from gateway.embedded import EmbeddedPostgres

MEMBERS = 40
REQUESTS = 120
AT_ONCE = 24
READY_SECONDS = 60

RECORD = "mutation($i: PurchaseInput!) { recordPurchase(input: $i) { earning { id points } errors { code } } }"
REDEEM = "mutation($i: RedeemPointsInput!) { redeemPoints(input: $i) { redemption { id points } errors { code } } }"
HOLD = "mutation($i: HoldPointsInput!) { holdPoints(input: $i) { hold { id points } errors { code } } }"
RETURN = "mutation($i: ReturnInput!) { returnPurchase(input: $i) { purchaseReturn { id points } errors { code } } }"
CAPTURE = "mutation($i: CaptureHoldInput!) { captureHold(input: $i) { redemption { id points } errors { code } } }"
REVERSE = "mutation($i: ReverseRedemptionInput!) { reverseRedemption(input: $i) { reversal { id points } errors { code } } }"
ENROL = "mutation($i: [EnrolMemberInput!]!) { enrolMembers(input: $i) { errors { code } } }"


KEPT = (
    "INSUFFICIENT_POINTS", "RECEIPT_ALREADY_POSTED", "HOLD_NOT_OPEN", "CAPTURE_EXCEEDS_HOLD", "REVERSAL_EXCEEDS_REDEMPTION",
)  # fmt: skip
"""Refusals by the ledger, which are kept like any answer."""


class Breach(AssertionError):
    """The ledger did not keep its word."""


class Coalition:
    """A gateway in a folder of its own, with one partner."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.environment = {
            **os.environ, "GATEWAY_DATA_DIR": str(folder), "GATEWAY_PORT": str(self.port), "GATEWAY_LOG_LEVEL": "error",
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, *command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *command], env=self.environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    def create(self) -> tuple[str, str]:
        """The coalition, a partner and its client."""
        self.run("coalition", "create", "--name", "Faults", "--currency", "USD")
        partner = self.folder / "partners" / "shop"
        partner.mkdir(parents=True)
        (partner / "partner.toml").write_text(
            'name = "Shop"\n[[contract]]\nvalid_from = 2020-01-01\nprogramme = "MER"\ncurrency = "USD"\nearn_rate = "1"\n'
        )
        self.run("partner", "onboard", str(partner / "partner.toml"))
        said = dict(line.split("=", 1) for line in self.run("partner", "client", "shop").split())
        return said["client_id"], said["client_secret"]

    def start(self) -> None:
        command = [sys.executable, "-m", "gateway", "serve"]
        self.process = subprocess.Popen(command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @property
    def dsn(self) -> str:
        return EmbeddedPostgres(self.folder).dsn

    def kill_gateway(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.start()

    def kill_postgres(self) -> None:
        pid = int((self.folder / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGKILL)

    async def ready(self, http: httpx.AsyncClient) -> None:
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until:
            try:
                if (await http.get("/readyz")).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.05)
        raise Breach("the gateway did not become ready again")


class Till:
    """Sends requests, and remembers what was answered."""

    def __init__(self, http: httpx.AsyncClient, client: tuple[str, str], chance: random.Random) -> None:
        self.http, self.client, self.chance = http, client, chance
        self.token, self.number = "", 0
        self.receipts: list[str] = []
        self.holds: list[str] = []
        self.redemptions: list[str] = []

    async def log_in(self) -> None:
        grant = {"grant_type": "client_credentials"}
        for _ in range(50):
            answer = await self.http.post("/oauth/token", data=grant, auth=self.client)
            if answer.status_code != 503:
                break
            await asyncio.sleep(0.1)  # it met a connection that died with the server
        if answer.status_code != 200:
            raise Breach(f"{answer.status_code}: {answer.text}")
        self.token = answer.json()["access_token"]

    def request(self) -> tuple[str, dict[str, Any]]:
        """A document and its input: mostly purchases, of few members, so that they meet."""
        self.number += 1
        member = {"externalId": f"m{self.chance.randrange(MEMBERS)}"}
        key, what = f"k{self.number}", self.chance.random()
        if what < 0.5 or not self.receipts:
            self.receipts.append(f"r{self.number}")
            amount = {"amount": f"{self.chance.randrange(100)}.00", "currency": "USD"}
            given = {"receipt": f"r{self.number}", "occurredAt": "2026-01-02T12:00:00Z", "total": amount}
            return RECORD, {"idempotencyKey": key, "member": member, **given}
        if what < 0.7:
            return REDEEM, {"idempotencyKey": key, "member": member, "programme": "MER", "points": self.chance.randrange(1, 40)}
        if what < 0.75 and self.holds:
            chosen = self.chance.choice(self.holds)
            return CAPTURE, {"idempotencyKey": key, "hold": chosen, "points": self.chance.randrange(1, 20)}
        if what < 0.8 and self.redemptions:
            chosen = self.chance.choice(self.redemptions)
            return REVERSE, {"idempotencyKey": key, "redemption": chosen, "points": self.chance.randrange(1, 20)}
        if what < 0.88:
            return HOLD, {"idempotencyKey": key, "member": member, "programme": "MER", "points": self.chance.randrange(1, 40)}
        receipt = self.chance.choice(self.receipts)
        given = {"receipt": receipt, "occurredAt": "2026-01-02T12:00:01Z", "total": {"amount": "1.00", "currency": "USD"}}
        return RETURN, {"idempotencyKey": key, **given}

    async def send(self, query: str, input: dict[str, Any]) -> dict[str, Any] | None:
        """The payload; None when there was no answer, or one that says to try again."""
        try:
            answer = await self.http.post(
                "/graphql", json={"query": query, "variables": {"i": input}}, headers={"Authorization": f"Bearer {self.token}"}
            )
        except httpx.HTTPError:
            return None
        if answer.status_code in (429, 503):
            return None
        body = answer.json()
        if answer.status_code != 200 or "errors" in body:
            raise Breach(f"{answer.status_code}: {body}")
        payload: dict[str, Any] = next(iter(body["data"].values()))
        return payload

    def remember(self, answer: dict[str, Any]) -> None:
        """What later requests can be about."""
        for name, known in (("hold", self.holds), ("redemption", self.redemptions)):
            if answer.get(name):
                known.append(answer[name]["id"])


async def one_round(coalition: Coalition, till: Till, victim: str) -> tuple[int, int]:
    """Load, a kill in the middle of it, everything again; answers how many were answered before, and in all."""
    asked = [till.request() for _ in range(REQUESTS)]
    answers: list[dict[str, Any] | None] = [None] * REQUESTS
    gate = asyncio.Semaphore(AT_ONCE)

    async def send(n: int) -> None:
        async with gate:
            answers[n] = await till.send(*asked[n])

    async def kill() -> None:
        await asyncio.sleep(till.chance.random() * 0.4)
        (coalition.kill_gateway if victim == "gateway" else coalition.kill_postgres)()

    await asyncio.gather(kill(), *(send(n) for n in range(REQUESTS)))
    await coalition.ready(till.http)
    await till.log_in()
    answered = sum(answer is not None for answer in answers)
    for n, (query, input) in enumerate(asked):
        again = await till.send(query, input)
        for _ in range(50):
            if again is not None:
                break
            await asyncio.sleep(0.1)
            again = await till.send(query, input)
        if again is None:
            raise Breach(f"{input} was never answered")
        first = answers[n]
        # A refusal before the ledger is worked out anew and may have become a yes since; a yes stays the same yes.
        kept = first is not None and all(error["code"] in KEPT for error in first["errors"])
        if kept and again != first:
            raise Breach(f"{input} was answered {first} at first and {again} later")
        till.remember(again)
    return answered, REQUESTS


async def once_in_the_ledger(coalition: Coalition) -> None:
    connection = await asyncpg.connect(coalition.dsn)
    try:
        twice = await connection.fetch(
            "select t.kind, t.transaction_id from transaction t left join idempotency k on k.transaction_id = t.transaction_id "
            "where k.key is null"
        )
        lost = await connection.fetch(
            "select key from idempotency k where transaction_id is not null "
            "and not exists (select from transaction t where t.transaction_id = k.transaction_id) "
            "and not exists (select from hold h where h.hold_id = k.transaction_id)"
        )
    finally:
        await connection.close()
    if twice or lost:
        raise Breach(f"posted twice: {twice}; answered and lost: {lost}")


async def run(rounds: int, seed: int) -> None:
    """Raises Breach."""
    with tempfile.TemporaryDirectory(prefix="gateway-faults-") as folder:
        Path(folder).chmod(0o755)
        coalition = Coalition(Path(folder))
        client = coalition.create()
        coalition.start()
        limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
        try:
            base = f"http://127.0.0.1:{coalition.port}"
            async with httpx.AsyncClient(base_url=base, timeout=30, limits=limits, trust_env=False) as http:
                till = Till(http, client, random.Random(seed))  # noqa: S311 - reproducible, not secret
                await coalition.ready(http)
                await till.log_in()
                await http.post(
                    "/graphql", headers={"Authorization": f"Bearer {till.token}"},
                    json={"query": ENROL, "variables": {"i": [{"externalId": f"m{n}"} for n in range(MEMBERS)]}},
                )  # fmt: skip
                for number in range(rounds):
                    victim = ("gateway", "postgres")[number % 2]
                    answered, asked = await one_round(coalition, till, victim)
                    await once_in_the_ledger(coalition)
                    print(
                        f"round {number + 1}: {victim} killed, {answered} of {asked} answered before, all of them after",
                        flush=True,
                    )
        finally:
            if coalition.process is not None:
                coalition.process.terminate()
                coalition.process.wait(30)
        coalition.run("verify")
        coalition.run("verify", "--chain")
        print(f"{rounds} rounds; every invariant holds.")


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    asyncio.run(run(given[0] if given else 50, given[1] if len(given) > 1 else 1))
