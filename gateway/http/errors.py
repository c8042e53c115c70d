"""How errors are told: with a code for programs, in few words, and none that were not meant for the caller."""

import re
import uuid
from collections.abc import Iterable

import structlog
from graphql import ExecutionResult, FieldNode, GraphQLError

from gateway.database import DatabaseAway, PostedNothing, Stuck
from gateway.graph import BadInput
from gateway.refusals import Refused
from gateway.turns import Busy

ERRORS_TOLD_MAX = 50
MESSAGE_MAX_CHARS = 500

_REPEATED = re.compile(r"(, found:|(?<=[.?]) Found:) .*\Z", re.DOTALL)

# What keeps something from being done now; the same can be asked again.
NOT_NOW = (DatabaseAway, Busy, Stuck, PostedNothing)

log = structlog.get_logger(__name__)


class DocumentRefused(Exception):
    """A document that cannot be run: `errors` say why, with BAD_DOCUMENT where there is no closer code."""

    def __init__(self, errors: list[GraphQLError]) -> None:
        super().__init__(errors[0].message)
        self.errors = [_coded(error, "BAD_DOCUMENT") for error in errors]
        self.code = str((self.errors[0].extensions or {})["code"])


def masked(result: ExecutionResult) -> ExecutionResult:
    """A result as the caller may see it; the rest is logged under a correlation id.

    Raises DatabaseAway, Busy, Stuck, PostedNothing.
    """
    if not result.errors:
        return result
    try:
        told = [_mask(error) for error in result.errors[:ERRORS_TOLD_MAX]]
    finally:
        _let_go(result.errors)
    return ExecutionResult(data=result.data, errors=told)


def _let_go(errors: Iterable[BaseException]) -> None:
    """Of the frames that errors came through: these hold them, and all that was asked, until the collector looks for rings."""
    left: list[BaseException | None] = [*errors]
    while left:
        error = left.pop()
        if error is not None:
            error.__traceback__ = None
            left += [error.__cause__, error.__context__, getattr(error, "original_error", None)]
            error.__cause__ = error.__context__ = None


def _coded(error: GraphQLError, code: str) -> GraphQLError:
    """The error with a code for programs, unless it has one."""
    error.extensions = {"code": code, **(error.extensions or {})}
    return error


def brief(error: GraphQLError) -> GraphQLError:
    """graphql-core repeats the whole input that a wrong field stands in; personal data may stand beside it."""
    message = _REPEATED.sub(lambda said: "." if said[1][0] == "," else "", error.message)
    return GraphQLError(_cut(message), nodes=error.nodes, extensions=error.extensions)


def _cut(message: str) -> str:
    return message if len(message) <= MESSAGE_MAX_CHARS else f"{message[:MESSAGE_MAX_CHARS]} ..."


def _mask(error: GraphQLError) -> GraphQLError:
    cause = error.original_error
    if isinstance(cause, NOT_NOW):
        raise cause
    if cause is None or isinstance(cause, GraphQLError):
        is_of_variables = error.path is None and not isinstance(cause, BadInput)
        return _coded(brief(error) if is_of_variables else error, "BAD_INPUT")
    if isinstance(cause, Refused):
        extensions = {"code": cause.code.value}
        return GraphQLError(cause.message, nodes=error.nodes, path=error.path, extensions=extensions)
    correlation_id = str(uuid.uuid4())
    field = error.nodes[0] if error.nodes else None  # not the path: whoever asks names it, and may name it after a card
    name = field.name.value if isinstance(field, FieldNode) else None
    log.error("unexpected error", correlation_id=correlation_id, field=name, exc_info=cause)
    return GraphQLError(
        f"Something unexpected happened; quote {correlation_id} when you report it.",
        nodes=error.nodes,
        path=error.path,
        extensions={"code": "INTERNAL", "correlationId": correlation_id},
    )
