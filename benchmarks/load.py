"""A load generator in one process: requests made beforehand, sent over keep-alive connections, each answer timed.

    python benchmarks/load.py HOST PORT CONNECTIONS SECONDS REQUESTS_FILE [RATE]

`REQUESTS_FILE` holds the raw HTTP requests, each after its length in four bytes. With RATE (requests per second) they
are sent at that pace whatever the answers take, and a latency counts from when a request was due. Prints one line of
JSON: requests per second, percentiles in milliseconds, and how many answers were not 200 or held a refusal.
"""

import asyncio
import json
import struct
import sys
import time
from collections import deque
from pathlib import Path

import uvloop


def pack(requests: list[bytes]) -> bytes:
    """Requests as this program reads them."""
    return b"".join(struct.pack(">I", len(r)) + r for r in requests)


def http(host: str, port: int, path: str, body: bytes, token: str | None) -> bytes:
    """A raw POST of JSON."""
    bearer = f"Authorization: Bearer {token}\r\n" if token else ""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{bearer}Content-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Client(asyncio.Protocol):
    """One connection with one request under way."""

    def __init__(self, run: "Run") -> None:
        self.run, self.buffer, self.due = run, b"", 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.run.free(self)

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self.transport.write(request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 : head.find(b"\r\n", at) if head.find(b"\r\n", at) > 0 else None])
        if len(self.buffer) < end + 4 + length:
            return
        ok = self.buffer.startswith(b"HTTP/1.1 200") and b'"errors":[{' not in self.buffer
        self.buffer = b""
        self.run.answered(time.perf_counter() - self.due, ok)
        self.run.free(self)


class Run:
    """Hands requests to free connections until the time is over."""

    def __init__(self, requests: list[bytes], seconds: float, rate: float | None) -> None:
        self.requests, self.rate = iter(requests), rate
        self.began = time.perf_counter()
        self.until = self.began + seconds
        self.latencies: list[float] = []
        self.bad = self.sent = 0
        self.waiting: deque[Client] = deque()
        self.done = asyncio.get_running_loop().create_future()

    def answered(self, latency: float, ok: bool) -> None:
        self.latencies.append(latency)
        self.bad += not ok

    def free(self, client: Client) -> None:
        if self.rate is not None:
            self.waiting.append(client)
        else:
            self._give(client, time.perf_counter())

    def _give(self, client: Client, due: float) -> None:
        request = next(self.requests, None)
        if request is None or time.perf_counter() > self.until:
            if not self.done.done():
                self.done.set_result(None)
            return
        self.sent += 1
        client.send(request, due)

    async def pace(self) -> None:
        """Send at the wanted rate: what is due goes out as soon as a connection is free."""
        assert self.rate is not None
        while not self.done.done():
            due = self.began + self.sent / self.rate
            if self.waiting and time.perf_counter() >= due:
                self._give(self.waiting.popleft(), due)
            else:
                # uvloop counts in milliseconds, and would spin on less: that core belongs to the gateway.
                await asyncio.sleep(0.001)


def unpack(raw: bytes) -> list[bytes]:
    """What `pack` packed."""
    requests, at = [], 0
    while at < len(raw):
        (length,) = struct.unpack_from(">I", raw, at)
        requests.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    return requests


async def main(host: str, port: int, connections: int, seconds: float, requests: list[bytes], rate: float | None) -> None:
    run = Run(requests, seconds, rate)
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(lambda: Client(run), host, port)
    pacer = asyncio.create_task(run.pace()) if rate is not None else None
    await run.done
    took = time.perf_counter() - run.began
    if pacer is not None:
        await pacer
    ordered = sorted(run.latencies)
    print(json.dumps({
        "per_second": len(ordered) / took,
        "p50_ms": 1000 * ordered[len(ordered) // 2],
        "p99_ms": 1000 * ordered[int(len(ordered) * 0.99)],
        "answers": len(ordered),
        "bad": run.bad,
    }))  # fmt: skip


if __name__ == "__main__":
    given = sys.argv[1:]
    rate = float(given[5]) if len(given) > 5 else None
    uvloop.run(main(given[0], int(given[1]), int(given[2]), float(given[3]), unpack(Path(given[4]).read_bytes()), rate))
