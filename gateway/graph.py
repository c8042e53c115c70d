"""What every slice's GraphQL types share: ids, rights, refusals as payload errors, money."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, TypeVar
from uuid import UUID

import strawberry
from graphql import GraphQLError
from strawberry.federation.schema_directives import RequiresScopes
from strawberry.schema_directive import Location

from gateway import ids, points, refusals
from gateway.refusals import InputNotAccepted, Refused
from gateway.scalars import CurrencyCode, Decimal

# ---------------------------------------------------------------- rights


@strawberry.schema_directive(locations=[Location.FIELD_DEFINITION, Location.INTERFACE, Location.OBJECT], name="public")
class Public:
    """Needs no scope of its own: it says nothing of anybody, or is only reached through a field that needs one."""


PUBLIC = Public()


@strawberry.schema_directive(locations=[Location.FIELD_DEFINITION], name="stepUp")
class StepUp:
    """Needs a login with two factors, not long ago (RFC 9470)."""


STEP_UP = StepUp()


def requires(*any_of: str) -> RequiresScopes:
    """`@requiresScopes`: one of the arguments suffices, each a space-separated set that is needed whole."""
    return RequiresScopes(scopes=[alternative.split() for alternative in any_of])


_OWN = ("members:lookup", "members:enrol", "points:earn", "points:reverse", "points:burn", "members:support")
_MEMBERSHIPS = (*_OWN, "profile:read")
SEES_MEMBERSHIPS, SEES_BALANCES = requires(*_MEMBERSHIPS), requires(*_OWN, "balance:read")
# Whoever may do it sees what it did. These scopes are members' too, who may let a partner use them: they open nothing else.
SEES_CONVERSIONS = requires(*_MEMBERSHIPS, "points:convert")
SEES_TRANSFERS = requires(*_MEMBERSHIPS, "points:transfer")

# ---------------------------------------------------------------- ids and refusals


def show_id(prefix: str, id: UUID) -> strawberry.ID:
    """The outside form of an id."""
    return strawberry.ID(ids.show(prefix, id))


def read_id(prefix: str, text: str, *path: str) -> UUID:
    """The id behind its outside form. Raises InputNotAccepted for another kind of id, before anything is looked up."""
    found = ids.read(prefix, text)
    if found is None:
        raise InputNotAccepted(f"{text[:80]!r} is not an id that begins with {prefix}_.", *path)
    return found


strawberry.enum(refusals.RefusalCode, description="Why something was refused.")


@strawberry.type(directives=[PUBLIC], description="An expected no: nothing was moved.")
class Refusal:
    code: refusals.RefusalCode = strawberry.field(description="What a program decides on.")
    message: str = strawberry.field(description="What was wrong, with which value, and what to do.")
    path: list[str] | None = strawberry.field(description="The part of the input it is about.")


def refusal(refused: Refused) -> Refusal:
    """A refusal as a payload error."""
    return Refusal(code=refused.code, message=refused.message, path=list(refused.path) or None)


@strawberry.type(directives=[PUBLIC])
class Payload:
    """What every mutation answers with: its fields are empty where `errors` are not."""

    errors: list[Refusal] = strawberry.field(default_factory=list)


Given = ParamSpec("Given")
AnyPayload = TypeVar("AnyPayload", bound=Payload)


def refusing(
    payload: type[AnyPayload],
) -> Callable[[Callable[Given, Awaitable[AnyPayload]]], Callable[Given, Awaitable[AnyPayload]]]:
    """A mutation whose refusals are its payload's errors."""

    def around(resolver: Callable[Given, Awaitable[AnyPayload]]) -> Callable[Given, Awaitable[AnyPayload]]:
        @wraps(resolver)
        async def resolve(*given: Given.args, **named: Given.kwargs) -> AnyPayload:
            try:
                return await resolver(*given, **named)
            except Refused as refused:
                return payload(errors=[refusal(refused)])

        return resolve

    return around


class BadInput(GraphQLError):
    """A query's argument that cannot be used; it is told to the caller as it is."""

    def __init__(self, message: str, refused: Refused | None = None) -> None:
        """`refused`: where it has a code of its own, and names the field of the input."""
        told = {"code": refused.code.value, "inputPath": list(refused.path)} if refused else {"code": "BAD_INPUT"}
        super().__init__(message, extensions=told)


# ---------------------------------------------------------------- money and nodes


@strawberry.type(directives=[PUBLIC], description="An exact amount of money.")
class Money:
    amount: Decimal = strawberry.field(description='In major units: "12.34".')
    currency: CurrencyCode


def money(value: points.Money) -> Money:
    return Money(amount=value.amount, currency=CurrencyCode(value.currency))  # type: ignore[arg-type]


@strawberry.input(description="An exact amount of money.")
class MoneyInput:
    amount: Decimal = strawberry.field(description='In major units, as a string: "12.34".')
    currency: CurrencyCode


@strawberry.federation.interface(directives=[PUBLIC], description="Anything with an id.")
class Node:
    id: strawberry.ID = strawberry.field(description="Opaque; its prefix names its kind.")
