"""A client of the gateway's API as a partner or the operator would write one: a token, then GraphQL."""

import time
from typing import Any

import httpx
import orjson

RENEW_BEFORE_SECONDS = 60


class ApiError(RuntimeError):
    """The API answered with errors; its text holds them."""


class Api:
    """One client's view of the gateway; it asks for a new token before the old one ends."""

    def __init__(self, http: httpx.AsyncClient, client_id: str, secret: str) -> None:
        self._http, self._client_id, self._secret = http, client_id, secret
        self._token, self._until = "", 0.0

    async def token(self) -> str:
        """A valid access token (client credentials)."""
        if time.monotonic() > self._until:
            answer = await self._http.post(
                "/oauth/token", data={"grant_type": "client_credentials"}, auth=(self._client_id, self._secret)
            )
            answer.raise_for_status()
            body = answer.json()
            self._token, self._until = body["access_token"], time.monotonic() + body["expires_in"] - RENEW_BEFORE_SECONDS
        return self._token

    async def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of a GraphQL answer. Raises ApiError."""
        return await ask(self._http, await self.token(), query, variables)


async def ask(http: httpx.AsyncClient, token: str, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    """Post one GraphQL request. Raises ApiError unless it was answered without errors."""
    answer = await http.post(
        "/graphql",
        content=orjson.dumps({"query": query, "variables": variables}),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    body = orjson.loads(answer.content)
    if answer.status_code != 200 or body.get("errors"):
        raise ApiError(f"{answer.status_code}: {body.get('errors', body)}")
    data: dict[str, Any] = body["data"]
    return data


def check(payloads: list[dict[str, Any]]) -> None:
    """Raises ApiError if a payload holds a refusal: the replay expects none."""
    for payload in payloads:
        if payload["errors"]:
            raise ApiError(str(payload["errors"]))
