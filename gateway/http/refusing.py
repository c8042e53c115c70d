"""Requests that get no execution."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from graphql import GraphQLError

from gateway.coalition.catalogue import NoCoalition
from gateway.database import DatabaseAway, PostedNothing, Stuck
from gateway.turns import Busy


class RequestRefused(Exception):
    """A request that gets no execution: an HTTP status, a code for programs, a sentence for people."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        headers: dict[str, str] | None = None,
        extensions: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}
        self.extensions = extensions

    @property
    def error(self) -> GraphQLError:
        return GraphQLError(self.message, extensions={"code": self.code})


def ended() -> RequestRefused:
    """Made anew each time: an exception that is raised again keeps everything that each raise held."""
    return RequestRefused(401, "UNAUTHENTICATED", "The token has ended; come back with a new one.")


def ending() -> RequestRefused:
    """For what was under way when the process had to end."""
    told = "The gateway is being stopped before it knew what this did. Try again with the same keys."
    return RequestRefused(503, "ENDING", told, {"Retry-After": "2"})


@contextmanager
def refusing_what_is_away() -> Iterator[None]:
    """Turns what keeps a request from being answered at all into a refusal of the request."""
    try:
        yield
    except NoCoalition as error:
        raise RequestRefused(503, "NO_COALITION", str(error)) from None
    except DatabaseAway:
        told = "The database does not answer, or keeps nothing; nothing is known to be posted. Try again with the same keys."
        raise RequestRefused(503, "DATABASE_AWAY", told, {"Retry-After": "2"}) from None
    except Busy as error:
        raise RequestRefused(429, "BUSY", str(error), {"Retry-After": "1"}) from None
    except (Stuck, PostedNothing):
        told = "Somebody else is at work on what this needs; try again in a moment."
        raise RequestRefused(429, "BUSY", told, {"Retry-After": "1"}) from None
