"""Requests that get no execution."""

from typing import Any

from graphql import GraphQLError


class Refusing(Exception):
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


def away() -> Refusing:
    sentence = "The database does not answer; nothing is known to have been posted. Try again with the same keys."
    return Refusing(503, "DATABASE_AWAY", sentence, {"Retry-After": "2"})
