"""JSON over HTTP.

`PUT /accounts/{account}/credits/{reference}` with `{"points": n}` credits once and answers
`{"reference", "balance"}`; `GET /accounts/{account}` answers `{"account", "balance"}`. 4xx with `{"error"}` is a no;
429 and 5xx are no answer.
"""

import asyncio
from urllib.parse import quote

import httpx
import orjson

from gateway.coalition.connector import Credit, PartnerRefused, PartnerSilent, PartnerUnreached
from gateway.outbound import NotRead, client_of, read_whole

TIMEOUT_SECONDS = 5.0
CONNECT_SECONDS = 2.0
CONNECTIONS_MAX, CREDITS_MAX = 24, 16
ANSWER_MAX_BYTES = 64 * 1024
REFERENCE_MAX_CHARS = 200


class RestJson:
    """A partner's system at `endpoint`, spoken to with capped connections, time and answers."""

    def __init__(self, endpoint: str) -> None:
        # Apart, so that however many look at their balances, points are exchanged.
        self._crediting, self._reading = asyncio.Semaphore(CREDITS_MAX), asyncio.Semaphore(CONNECTIONS_MAX - CREDITS_MAX)
        timeout = httpx.Timeout(TIMEOUT_SECONDS, connect=CONNECT_SECONDS)
        self._client = client_of(ANSWER_MAX_BYTES, timeout, CONNECTIONS_MAX, endpoint)

    async def credit(self, account: str, points: int, reference: str) -> Credit:
        path = f"/accounts/{_segment(account)}/credits/{_segment(reference)}"
        answer = await self._ask(self._crediting, "PUT", path, {"points": points})
        return Credit(reference=_plain(str(answer["reference"])), balance=_whole(answer["balance"]))

    async def balance(self, account: str) -> int:
        answer = await self._ask(self._reading, "GET", f"/accounts/{_segment(account)}", None)
        return _whole(answer["balance"])

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, turns: asyncio.Semaphore, method: str, path: str, body: object) -> dict[str, object]:
        """Ask while no more than so many ask: httpx looks through all who wait each time that one comes or goes."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):  # wait_for of Python 3.11 can lose a cancellation
                await turns.acquire()
        except TimeoutError:
            raise PartnerUnreached("Too many ask this partner at once.") from None
        try:
            return await self._ask_now(method, path, body)
        finally:
            turns.release()

    async def _ask_now(self, method: str, path: str, body: object) -> dict[str, object]:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS), self._client.stream(method, path, json=body) as response:
                content = await read_whole(response, ANSWER_MAX_BYTES)
        except NotRead as error:
            raise PartnerSilent(str(error)) from None
        except TimeoutError:
            raise PartnerSilent(f"The answer was not there within {TIMEOUT_SECONDS} seconds.") from None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise PartnerUnreached(f"The partner could not be reached: {type(error).__name__}.") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise PartnerSilent(f"The answer broke off: {type(error).__name__}.") from error
        if response.status_code == 429 or response.status_code >= 500:
            raise PartnerSilent(f"The partner answered {response.status_code}.")
        try:
            answer = orjson.loads(content)
        except orjson.JSONDecodeError:
            raise PartnerSilent("The partner's answer is not JSON.") from None
        if not isinstance(answer, dict):
            raise PartnerSilent("The partner's answer is not an object.")
        if response.status_code >= 400:
            raise PartnerRefused(f"The partner answered {response.status_code}.")
        if not {"balance"} <= answer.keys() or (method == "PUT" and "reference" not in answer):
            raise PartnerSilent("The partner's answer lacks the balance or the reference.")
        return answer


def _segment(text: str) -> str:
    """A part of a path. Raises PartnerRefused for what is a way to somewhere else (RFC 3986, section 3.3)."""
    if text in (".", ".."):
        raise PartnerRefused("That names no account.")
    return quote(text, safe="")


def _plain(text: str) -> str:
    """What can be kept and shown of a partner's text."""
    return "".join(char if char.isprintable() else "?" for char in text[:REFERENCE_MAX_CHARS])


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**53:
        raise PartnerSilent("The partner's balance is not a whole number.")
    return value
