"""`make bench`: the ledger and the API against two yardsticks measured in the same run, medians of ROUNDS.

P: pgbench of the same binaries, TPC-B-like, prepared, 8 clients, scale 20, transactions per second.
S: a bare Strawberry mutation on the same uvicorn, requests per second.
fsync and synchronous_commit are on throughout. Writes a table to standard output; progress goes to standard error.
"""

import asyncio
import contextlib
import datetime as dt
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import orjson
from load import http, pack

from gateway.access import accounts
from gateway.access.scopes import CEILING
from gateway.access.tokens import Subject, Tokens, load_signing_keys
from gateway.clock import SystemClock
from gateway.coalition import onboard
from gateway.coalition.catalogue import Coalition, read_coalition
from gateway.database import Database
from gateway.earning.purchases import earning_terms
from gateway.embedded import EmbeddedPostgres
from gateway.ids import new_id_in
from gateway.ledger.post import Earning, Key, Ledger, Redemption, Terms
from gateway.migrate import migrate

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
MEMBERS = int(os.environ.get("BENCH_MEMBERS", "100000"))
PURCHASES = int(os.environ.get("BENCH_PURCHASES", "1000000"))
HOUSEHOLDS = 2_000
PARTNERS = 8
HERE = Path(__file__).parent
PORT, BARE_PORT = 8291, 8292
RECORD = "mutation($input: PurchaseInput!) { recordPurchase(input: $input) { earning { id points } errors { code } } }"
MANY = "mutation($input: [PurchaseInput!]!) { recordPurchases(input: $input) { earning { id points } errors { code } } }"
ME = """query { me { id wallets { programme { code } available pending held owed }
activity(first: 20) { nodes { id points occurredAt period } } } }"""
BARE = "mutation($input: NothingInput!) { nothing(input: $input) { done } }"

rows: list[tuple[str, str, str, str, str]] = []


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def row(figure: str, must: str, aim: str, measured: str, ratio: str) -> None:
    rows.append((figure, must, aim, measured, ratio))
    say(f"{figure}: {measured} ({ratio}; must {must}, aim {aim})")


# ---------------------------------------------------------------- yardsticks


def measure_p(postgres: EmbeddedPostgres) -> float:
    """pgbench's transactions per second, initial connections left out."""
    dsn = postgres.dsn.replace("/postgres?", "/yardstick?")
    subprocess.run([postgres.binaries / "createdb", "-d", postgres.dsn, "yardstick"], check=False, capture_output=True)
    psql = [postgres.binaries / "psql", postgres.dsn, "-qc", "create database yardstick"]
    subprocess.run(psql, check=False, capture_output=True)
    subprocess.run([postgres.binaries / "pgbench", "-i", "-q", "-s", "20", dsn], check=True, capture_output=True)
    command = [postgres.binaries / "pgbench", "-M", "prepared", "-c", "8", "-j", "2", "-T", str(int(SECONDS)), dsn]
    found = []
    for _ in range(ROUNDS):
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        match = re.search(r"tps = ([\d.]+)", said)
        assert match is not None
        found.append(float(match[1]))
        say(f"P {found[-1]:,.0f}")
    return statistics.median(found)


@contextlib.contextmanager
def bare(answer: str = "") -> Iterator[None]:
    """The bare application, on the gateway's own server."""
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "bare:app",
        "--port",
        str(BARE_PORT),
        "--log-level",
        "critical",
        "--app-dir",
        str(HERE),
    ]
    environment = os.environ | ({"BARE_JSON": answer} if answer else {})
    with process(command, environment, f"http://127.0.0.1:{BARE_PORT}/"):
        yield


@contextlib.contextmanager
def process(command: list[str], environment: dict[str, str], url: str) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                httpx.get(url, timeout=1, trust_env=False)
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        yield started
    finally:
        started.terminate()
        started.wait(30)


def load(
    port: int, requests: Sequence[bytes], connections: int, seconds: float = SECONDS, rate: float | None = None
) -> dict[str, Any]:
    """Run the load generator in a process of its own."""
    with tempfile.NamedTemporaryFile(suffix=".requests") as file:
        file.write(pack(list(requests)))
        file.flush()
        command = [sys.executable, str(HERE / "load.py"), "127.0.0.1", str(port), str(connections), str(seconds), file.name]
        said = subprocess.run([*command, *([str(rate)] if rate else [])], check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(said)
    if found["bad"]:
        say(f"{found['bad']} of {found['answers']} answers were not what was asked for")
    return found


def median_load(port: int, make: Callable[[], list[bytes]], connections: int) -> float:
    """The median of ROUNDS, each with requests of its own."""
    return statistics.median(load(port, make(), connections)["per_second"] for _ in range(ROUNDS))


def measure_s() -> float:
    body = orjson.dumps({"query": BARE, "variables": {"input": {"key": "k"}}})
    one = http("127.0.0.1", BARE_PORT, "/", body, None)
    with bare():
        load(BARE_PORT, [one] * 2_000, 8, 1)
        return median_load(BARE_PORT, lambda: [one] * int(SECONDS * 20_000), 64)


# ---------------------------------------------------------------- the ledger function


async def measure_ledger(dsn: str, p: float) -> None:
    database = Database(dsn, 2)
    await database.open()
    clock = SystemClock()
    ledger = Ledger(database, clock, 1)
    async with database.reading() as tx:
        coalition = await read_coalition(tx)
    contracts = [each[0] for each in coalition.contracts.values()]
    today = coalition.day_of(clock.now())
    terms = [earning_terms(coalition, contract, today) for contract in contracts]
    chance = random.Random(1)  # noqa: S311 - reproducible, not secret
    members = [new_id_in(n % 256) for n in range(MEMBERS)]
    number = 0

    def earning(member: UUID, on: Terms) -> Earning:
        nonlocal number
        number += 1
        key = Key(on.partner_id, f"earning-{number}", chance.randbytes(32))
        points = chance.randint(1, 90)
        return Earning(key, on, member, member, clock.now(), points, f"r-{number}", None, points * 100, None)

    say(f"every one of {MEMBERS:,} members gets a wallet and a lot")
    for start in range(0, MEMBERS, 1_000):
        await ledger.earn([earning(member, terms[0]) for member in members[start : start + 1_000]])
    found = []
    for _ in range(ROUNDS):
        batches = [[earning(chance.choice(members), terms[0]) for _ in range(1_000)] for _ in range(20)]
        began = time.perf_counter()
        for batch in batches:
            answers = await ledger.earn(batch)
            assert all(answer.transaction_id for answer in answers)
        found.append(20_000 / (time.perf_counter() - began))
        say(f"earnings {found[-1]:,.0f}/s")
    per_second = statistics.median(found)
    row("earnings in batches of 1,000, one connection", "4 P", "8 P", f"{per_second:,.0f}/s", f"{per_second / p:.1f} P")

    rich = members[:20_000]
    say("five lots a wallet")
    for on in terms[1:5]:
        for start in range(0, len(rich), 1_000):
            await ledger.earn([earning(member, on) for member in rich[start : start + 1_000]])
    found = []
    for round_ in range(ROUNDS):
        spent = [
            Redemption(
                Key(terms[0].partner_id, f"redemption-{round_}-{n}", b"x" * 32),
                Terms(terms[0].partner_id, terms[0].programme_id, terms[0].contract_id, "USD", today.replace(day=1),
                      terms[0].issue_price, day=today),
                member, member, clock.now(), 5, None,
            )
            for n, member in enumerate(chance.sample(rich, 10_000))
        ]  # fmt: skip
        began = time.perf_counter()
        for start in range(0, len(spent), 1_000):
            await ledger.redeem(spent[start : start + 1_000])
        found.append(len(spent) / (time.perf_counter() - began))
        say(f"redemptions {found[-1]:,.0f}/s")
    per_second = statistics.median(found)
    row("redemptions likewise, five lots a wallet", "2 P", "4 P", f"{per_second:,.0f}/s", f"{per_second / p:.1f} P")
    await database.close()


# ---------------------------------------------------------------- the API


class Tills:
    """Requests of tills: each with a key and a receipt of its own."""

    def __init__(self, tokens: dict[str, str]) -> None:
        self.tokens, self._number = tokens, 0

    def purchase(self) -> dict[str, Any]:
        self._number += 1
        return {
            "idempotencyKey": f"k-{self._number}",
            "receipt": f"t-{self._number}",
            "member": {"externalId": f"m{self._number * 7919 % HOUSEHOLDS}"},
            "occurredAt": dt.datetime.now(dt.UTC).isoformat(),
            "total": {"amount": "12.50", "currency": "USD"},
        }

    def singles(self, count: int, partners: Sequence[str]) -> list[bytes]:
        return [self._request(RECORD, self.purchase(), partners[n % len(partners)]) for n in range(count)]

    def batches(self, count: int, size: int, partner: str) -> list[bytes]:
        return [self._request(MANY, [self.purchase() for _ in range(size)], partner) for _ in range(count)]

    def _request(self, query: str, input: object, partner: str) -> bytes:
        body = orjson.dumps({"query": query, "variables": {"input": input}})
        return http("127.0.0.1", PORT, "/graphql", body, self.tokens[partner])


def measure_api(
    tills: Tills, member_token: Callable[[], str], renew: Callable[[], dict[str, str]], s: float, p: float, pid: int
) -> None:
    first = sorted(tills.tokens)[0]
    each = int(SECONDS * 6_000)
    load(PORT, tills.singles(2_000, [first]), 16, 2)

    def one() -> list[bytes]:
        tills.tokens = renew()
        return tills.singles(each, sorted(tills.tokens))

    single = median_load(PORT, one, 64)
    row("single recordPurchase over HTTP, 64 connections", "0.6 S", "1 S", f"{single:,.0f}/s", f"{single / s:.2f} S")
    tills.tokens = renew()
    paced = [load(PORT, one(), 64, SECONDS, single / 2)["p99_ms"] for _ in range(ROUNDS)]
    row("its p99 latency at half that load", "50 ms", "20 ms", f"{statistics.median(paced):.0f} ms", "")

    def hundreds() -> list[bytes]:
        tills.tokens = renew()
        return tills.batches(int(SECONDS * 120), 100, first)

    batched = 100 * median_load(PORT, hundreds, 8)
    row("recordPurchases of 100 over HTTP, purchases/s", "1.5 P", "3 P", f"{batched:,.0f}/s", f"{batched / p:.1f} P")

    def hot() -> list[bytes]:
        tills.tokens = renew()
        return tills.singles(each, [first])

    shares = []
    for _ in range(ROUNDS):
        shares.append(load(PORT, hot(), 64)["per_second"] / load(PORT, one(), 64)["per_second"])
    share = statistics.median(shares)
    row("one partner receiving all, against eight", "0.9", "1", f"{share:.2f}", "")

    body = orjson.dumps({"query": ME})
    token = member_token()
    asked = httpx.post(
        f"http://127.0.0.1:{PORT}/graphql", content=body, trust_env=False,
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    ).json()  # fmt: skip
    answer = asked["data"]["me"]
    assert len(answer["activity"]["nodes"]) == 20
    mine = median_load(PORT, lambda: [http("127.0.0.1", PORT, "/graphql", body, member_token())] * each, 16)
    with bare(json.dumps(answer)):
        theirs = median_load(BARE_PORT, lambda: [http("127.0.0.1", BARE_PORT, "/", body, None)] * each, 16)
    row("me with wallets and twenty activities", "0.4", "0.8", f"{mine:,.0f}/s", f"{mine / theirs:.2f} of {theirs:,.0f}/s bare")

    memory = []
    for done in range(0, PURCHASES, max(PURCHASES // 5, 1)):
        tills.tokens = renew()
        for _ in range(PURCHASES // 5 // 50_000):
            load(PORT, tills.batches(500, 100, first), 8, 250)
            tills.tokens = renew()
        memory.append(resident_mb(pid))
        say(f"{done + PURCHASES // 5:,} purchases: {memory[-1]:.0f} MB")
    if memory:
        row(
            f"memory of the gateway over {PURCHASES:,} purchases",
            "flat",
            "flat",
            " ".join(f"{m:.0f}" for m in memory) + " MB",
            "",
        )


def resident_mb(pid: int) -> float:
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024  # type: ignore[index]


async def create_world(dsn: str) -> Coalition:
    database = Database(dsn, 2)
    await database.open()
    now = SystemClock().now()
    async with database.transaction() as tx:
        await onboard.create_coalition(tx, onboard.NewCoalition("Bench", "UTC", "USD", dt.date(2026, 1, 1)))
        await onboard.create_programme(tx, onboard.NewProgramme("MER", "Points", "ledger", expires_after_months=6))
        price, nothing = Decimal("0.01"), Decimal(0)
        contract = onboard.NewContract("MER", "USD", dt.date(2026, 1, 1), Fraction(1), price, price, nothing, nothing)
        partners = [onboard.NewPartner(f"partner{n}", f"Partner {n}", contracts=(contract,)) for n in range(PARTNERS)]
        await onboard.onboard_from_files(tx, partners, now)
        coalition = await read_coalition(tx)
    await database.close()
    return coalition


async def tokens_of(dsn: str, coalition: Coalition, issuer: str) -> tuple[Callable[[], dict[str, str]], Callable[[UUID], str]]:
    database = Database(dsn, 2)
    await database.open()
    clock = SystemClock()
    signer = Tokens(issuer, await load_signing_keys(database, clock), clock)
    await database.close()

    def partners() -> dict[str, str]:
        return {
            p.code: signer.issue(Subject("partner", p.id), p.code, CEILING["partner"], clock.now())
            for p in coalition.partners.values()
        }

    def member(id: UUID) -> str:
        return signer.issue(Subject("member", id), accounts.APP_CLIENT, CEILING["member"], clock.now())

    return partners, member


def enrol(tokens: dict[str, str]) -> None:
    """The same households at every partner, by card."""
    join = "mutation($i: [{kind}!]!) {{ {verb}(input: $i) {{ errors {{ code }} }} }}"
    for position, (_, token) in enumerate(sorted(tokens.items())):
        kind, verb = ("LinkMembershipInput", "linkMemberships") if position else ("EnrolMemberInput", "enrolMembers")
        for start in range(0, HOUSEHOLDS, 1_000):
            people = [{"externalId": f"m{n}", "card": f"C-{n}"} for n in range(start, start + 1_000)]
            said = httpx.post(
                f"http://127.0.0.1:{PORT}/graphql", timeout=60, trust_env=False,
                json={"query": join.format(kind=kind, verb=verb), "variables": {"i": people}},
                headers={"Authorization": f"Bearer {token}"},
            ).json()  # fmt: skip
            assert not any(each["errors"] for each in said["data"][verb]), said


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        Path(folder).chmod(0o755)
        postgres = EmbeddedPostgres(Path(folder) / "data")
        dsn = postgres.start()
        try:
            migrate(dsn)
            p = measure_p(postgres)
            coalition = asyncio.run(create_world(dsn))
            asyncio.run(measure_ledger(dsn, p))
            s = measure_s()
            say(f"S {s:,.0f}")
            issuer = f"http://127.0.0.1:{PORT}"
            environment = os.environ | {"DATABASE_URL": dsn, "GATEWAY_DATA_DIR": f"{folder}/gateway", "GATEWAY_PORT": str(PORT)}
            with process([sys.executable, "-m", "gateway", "serve"], environment, f"{issuer}/readyz") as gateway:
                renew, member = asyncio.run(tokens_of(dsn, coalition, issuer))
                enrol(renew())
                some = find_member(dsn)
                measure_api(Tills(renew()), lambda: member(some), renew, s, p, gateway.pid)
        finally:
            postgres.stop()
    print(f"P = {p:,.0f}, S = {s:,.0f}; medians of {ROUNDS}; Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}.\n")
    print("| figure | must | aim | measured | ratio |\n|---|---|---|---|---|")
    for each in rows:
        print("| " + " | ".join(each) + " |")


def find_member(dsn: str) -> UUID:
    async def look() -> UUID:
        database = Database(dsn, 2)
        await database.open()
        async with database.reading() as tx:
            from gateway.members.lookup import sql as members_sql

            found: UUID = (await tx.all(members_sql.cards_by_number, numbers=["C-1"]))[0]["member_id"]
        await database.close()
        return found

    return asyncio.run(look())


if __name__ == "__main__":
    main()
