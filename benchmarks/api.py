"""The API over HTTP: tills that post, and members that look."""

import datetime as dt
import json
import os
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import orjson
from load import http
from yardsticks import ROUNDS, SECONDS, Yardstick, bare_query, load, row, say

from gateway.http.documents import document_id

PURCHASES = int(os.environ.get("BENCH_PURCHASES", "1000000"))
HOUSEHOLDS = 2_000
PORT = 8291
RECORD = "mutation($input: PurchaseInput!) { recordPurchase(input: $input) { earning { id points } errors { code } } }"
MANY = "mutation($input: [PurchaseInput!]!) { recordPurchases(input: $input) { earning { id points } errors { code } } }"
ME = """query { me { id wallets { programme { code } available pending held owed }
activity(first: 20) { nodes { id points occurredAt period } } } }"""


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
    tills: Tills, member_tokens: Callable[[], list[str]], renew: Callable[[], dict[str, str]], s: Yardstick, p: Yardstick,
    pid: int,
) -> None:  # fmt: skip
    first = sorted(tills.tokens)[0]
    each = int(SECONDS * 6_000)
    load(PORT, tills.singles(2_000, [first]), 16, 2)

    def one() -> list[bytes]:
        tills.tokens = renew()
        return tills.singles(each, sorted(tills.tokens))

    single = s.in_turns(
        "single recordPurchase over HTTP, 64 connections", "0.6", "1", lambda: load(PORT, one(), 64)["per_second"]
    )
    tills.tokens = renew()
    paced = [load(PORT, one(), 64, SECONDS, single / 2)["p99_ms"] for _ in range(ROUNDS)]
    row("its p99 latency at half that load", "50 ms", "20 ms", f"{statistics.median(paced):.0f} ms", "")

    def hundreds() -> list[bytes]:
        tills.tokens = renew()
        return tills.batches(int(SECONDS * 120), 100, first)

    p.in_turns(
        "recordPurchases of 100 over HTTP, purchases/s", "1.5", "3", lambda: 100 * load(PORT, hundreds(), 8)["per_second"]
    )

    def hot() -> list[bytes]:
        tills.tokens = renew()
        return tills.singles(each, [first])

    shares = []
    for _ in range(ROUNDS):
        shares.append(load(PORT, hot(), 64)["per_second"] / load(PORT, one(), 64)["per_second"])
    share = statistics.median(shares)
    row("one partner receiving all, against eight", "0.9", "1", f"{share:.2f}", "")

    body = orjson.dumps({"documentId": document_id(ME)})

    def asked(token: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        said = httpx.post(f"http://127.0.0.1:{PORT}/graphql", content=body, trust_env=False, headers=headers).json()
        me: dict[str, Any] = said["data"]["me"]
        return me

    answer = next(me for token in member_tokens() if len((me := asked(token))["activity"]["nodes"]) == 20)

    def apps() -> list[bytes]:
        requests = [http("127.0.0.1", PORT, "/graphql", body, token) for token in member_tokens()]
        return [requests[n % len(requests)] for n in range(each)]

    with bare_query(ME, json.dumps(answer), each) as theirs:
        theirs.in_turns("me with wallets and twenty activities", "0.4", "0.8", lambda: load(PORT, apps(), 16)["per_second"])

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
