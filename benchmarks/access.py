"""What checking costs: a known token, a new one, the rights of a known document, and tokens a second at their endpoint."""

import base64
import time
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlencode
from uuid import uuid4

from api import PORT, RECORD
from joserfc.jwk import ECKey
from yardsticks import SECONDS, median_load, row

from gateway.access.scopes import CEILING
from gateway.access.signing_keys import SigningKey
from gateway.access.tokens import Subject, Tokens
from gateway.clock import SystemClock
from gateway.http.engine import Engine
from gateway.schema import create_schema

TIMES = 2_000


def micros(do: Callable[[int], object]) -> float:
    """The best of five rounds, in microseconds a call: what else the machine does can only add."""
    best = float("inf")
    for round_ in range(5):
        began = time.perf_counter()
        for n in range(TIMES):
            do(round_ * TIMES + n)
        best = min(best, (time.perf_counter() - began) / TIMES * 1e6)
    return best


def measure_checks() -> None:
    key = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, private=True, auto_kid=True)
    tokens = Tokens("https://gateway.example", [SigningKey(key, "active", SystemClock().now(), None)], SystemClock())
    issued = [
        tokens.issue(Subject("partner", uuid4()), "bench", CEILING["partner"], datetime.now(UTC)) for _ in range(5 * TIMES)
    ]
    new = micros(lambda n: tokens.verify(issued[n]))
    known = micros(lambda n: tokens.verify(issued[-1]))
    caller = tokens.verify(issued[-1])
    engine = Engine(create_schema())
    engine.prepare(RECORD)

    def guard(n: int) -> None:
        prepared = engine.prepare(RECORD)
        engine.check_rights(prepared, caller)
        engine.check_step_up(prepared, caller, now)
        engine.check_cost(prepared, None, None, {})

    now = datetime.now(UTC)
    row("checking a known token", "5 us", "", f"{known:.1f} us", "")
    row("checking a new ES256 token", "250 us", "", f"{new:.0f} us", "")
    row("rights, step-up and cost of a known document", "20 us", "", f"{micros(guard):.1f} us", "")


def measure_tokens(client_id: str, secret: str) -> None:
    """Tokens a second, client credentials with a secret, one gateway process."""
    form = urlencode({"grant_type": "client_credentials"}).encode()
    basic = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
    head = (
        f"POST /oauth/token HTTP/1.1\r\nHost: 127.0.0.1:{PORT}\r\nAuthorization: Basic {basic}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(form)}\r\n\r\n"
    )
    request = head.encode() + form
    per_second = median_load(PORT, lambda: [request] * int(SECONDS * 3_000), 16)
    row("tokens at the token endpoint", "1,000/s", "", f"{per_second:,.0f}/s", "")
