"""What the benchmark measures against, and how: pgbench, a bare Strawberry, the load generator, medians."""

import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import orjson
from load import http, pack

from gateway.embedded import EmbeddedPostgres

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
HERE = Path(__file__).parent
MUTATION_PORT, QUERY_PORT = 8292, 8293
BARE = "mutation($input: NothingInput!) { nothing(input: $input) { done } }"

rows: list[tuple[str, str, str, str, str]] = []


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def row(figure: str, must: str, aim: str, measured: str, ratio: str) -> None:
    rows.append((figure, must, aim, measured, ratio))
    say(f"{figure}: {measured} ({ratio}; must {must}, aim {aim})")


class Yardstick:
    """Something that is measured again and again, in turns with what is measured against it."""

    def __init__(self, name: str, measure: Callable[[], float]) -> None:
        self.name, self._measure = name, measure
        self.found: list[float] = []

    def __call__(self) -> float:
        self.found.append(self._measure())
        return self.found[-1]

    def in_turns(self, figure: str, must: str, aim: str, measure: Callable[[], float]) -> float:
        """ROUNDS times the yardstick and then the figure: whatever slows the machine down meets both. Answers the median."""
        pairs = [(self(), measure()) for _ in range(ROUNDS)]
        ratios = [found / yard for yard, found in pairs]
        for (yard, found), ratio in zip(pairs, ratios, strict=True):
            say(f"{found:,.0f}/s, {self.name} {yard:,.0f}/s: {ratio:.2f}")
        median = statistics.median(found for _, found in pairs)
        spread = f"{statistics.median(ratios):.2f} {self.name} ({min(ratios):.2f} to {max(ratios):.2f})"
        row(figure, f"{must} {self.name}", f"{aim} {self.name}", f"{median:,.0f}/s", spread)
        return median


def age(postgres: EmbeddedPostgres) -> None:
    """Have the log files that a server has once it has run for some time, and writes again instead of making new ones."""
    fill = "select pg_logical_emit_message(false, '', ''); select pg_switch_wal();\n" * 64
    command = [str(postgres.binaries / "psql"), "-q", postgres.dsn]
    subprocess.run(command, input=f"{fill}checkpoint;", check=True, capture_output=True, text=True)


def pgbench(postgres: EmbeddedPostgres) -> Yardstick:
    """P: pgbench's transactions per second, initial connections left out."""
    dsn = postgres.dsn.replace("/postgres?", "/yardstick?")
    psql = [str(postgres.binaries / "psql"), postgres.dsn, "-qc", "create database yardstick"]
    subprocess.run(psql, check=True, capture_output=True)
    subprocess.run([postgres.binaries / "pgbench", "-i", "-q", "-s", "20", dsn], check=True, capture_output=True)
    command = [str(postgres.binaries / "pgbench"), "-M", "prepared", "-c", "8", "-j", "2", "-T", str(int(SECONDS)), dsn]

    def measure() -> float:
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        match = re.search(r"tps = ([\d.]+)", said)
        assert match is not None
        return float(match[1])

    return Yardstick("P", measure)


@contextlib.contextmanager
def bare(port: int, answer: str = "") -> Iterator[None]:
    """The bare application, on the gateway's own server."""
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "bare:app",
        "--port",
        str(port),
        "--log-level",
        "critical",
        "--app-dir",
        str(HERE),
    ]
    environment = os.environ | ({"BARE_JSON": answer} if answer else {})
    with process(command, environment, f"http://127.0.0.1:{port}/"):
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
    rounds: list[float] = [load(port, make(), connections)["per_second"] for _ in range(ROUNDS)]
    return statistics.median(rounds)


@contextlib.contextmanager
def bare_mutation() -> Iterator[Yardstick]:
    """S: requests per second of a bare mutation that does nothing."""
    body = orjson.dumps({"query": BARE, "variables": {"input": {"key": "k"}}})
    one = http("127.0.0.1", MUTATION_PORT, "/", body, None)
    with bare(MUTATION_PORT):
        load(MUTATION_PORT, [one] * 2_000, 8, 1)
        yield Yardstick("S", lambda: load(MUTATION_PORT, [one] * int(SECONDS * 20_000), 64)["per_second"])


@contextlib.contextmanager
def bare_query(query: str, answer: str, most: int) -> Iterator[Yardstick]:
    """Requests per second of a bare query that is answered with this JSON, `most` of them at most."""
    one = http("127.0.0.1", QUERY_PORT, "/", orjson.dumps({"query": query}), None)
    with bare(QUERY_PORT, answer):
        yield Yardstick("of a bare query", lambda: load(QUERY_PORT, [one] * most, 16)["per_second"])
