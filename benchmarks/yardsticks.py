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
BARE_PORT = 8292
BARE = "mutation($input: NothingInput!) { nothing(input: $input) { done } }"

rows: list[tuple[str, str, str, str, str]] = []


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def row(figure: str, must: str, aim: str, measured: str, ratio: str) -> None:
    rows.append((figure, must, aim, measured, ratio))
    say(f"{figure}: {measured} ({ratio}; must {must}, aim {aim})")


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
