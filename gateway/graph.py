"""What every slice's GraphQL types share: scalars, ids, rights, refusals as payload errors, connections."""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal as PyDecimal
from functools import wraps
from typing import Any, Generic, NewType, ParamSpec, TypeVar
from uuid import UUID

import strawberry
from graphql import GraphQLError, ValueNode, value_from_ast_untyped
from strawberry.federation.schema_directives import RequiresScopes
from strawberry.schema_directive import Location
from strawberry.types.scalar import ScalarDefinition

from gateway import ids, points, refusals
from gateway.points import BadAmount, read_decimal
from gateway.refusals import InputNotAccepted, Refused

# ---------------------------------------------------------------- scalars

Points = NewType("Points", int)
Decimal = NewType("Decimal", PyDecimal)
DateTime = NewType("DateTime", datetime)
Day = NewType("Day", date)
YearMonth = NewType("YearMonth", date)
CurrencyCode = NewType("CurrencyCode", str)

_FINER = re.compile(r"(\.\d{6})\d+")
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


def _parse_points(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > points.MAX_POINTS:
        raise GraphQLError(f"Points must be a whole JSON number of at most 2^53-1, not {_shown(value)}.")
    return value


def _parse_decimal(value: object) -> PyDecimal:
    if not isinstance(value, str):
        raise GraphQLError(f'Decimal must be a string such as "12.34", not {_shown(value)}.')
    try:
        return read_decimal(value)
    except BadAmount as error:
        raise GraphQLError(str(error)) from None


def _show_decimal(value: object) -> str:
    return value if isinstance(value, str) else f"{value:f}"


def _parse_date_time(value: object) -> datetime:
    if not isinstance(value, str) or not _DATE_TIME.fullmatch(value):
        raise GraphQLError(f"DateTime must be RFC 3339 with an offset, such as 2026-10-01T12:00:00Z, not {_shown(value)}.")
    try:
        parsed = datetime.fromisoformat(_FINER.sub(r"\1", value.upper()) if len(value) > 32 else value.upper())
        return parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        raise GraphQLError(f"{_shown(value)} is not a moment of the calendar.") from None


def _show_date_time(value: datetime) -> str:
    return (value if value.tzinfo is UTC else value.astimezone(UTC)).isoformat()[: -len("+00:00")] + "Z"


def _parse_day(value: object) -> date:
    try:
        if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise GraphQLError(f"Date must be a day such as 2026-10-31, not {_shown(value)}.")


def _parse_month(value: object) -> date:
    try:
        if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d", value):
            return date.fromisoformat(f"{value}-01")
    except ValueError:
        pass
    raise GraphQLError(f"YearMonth must be a month such as 2026-10, not {_shown(value)}.")


def _parse_currency(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Z]{3}", value):
        raise GraphQLError(f"CurrencyCode must be three capital letters such as USD, not {_shown(value)}.")
    return value


def _literal_of(parse: Callable[[object], Any]) -> Callable[..., Any]:
    """Reads what is written into a document, and says where it stands if it cannot be used."""

    def read(node: ValueNode, variables: dict[str, Any] | None = None) -> Any:
        try:
            return parse(value_from_ast_untyped(node, variables))
        except GraphQLError as error:
            raise GraphQLError(error.message, nodes=node) from None

    return read


def _shown(value: object) -> str:
    return repr(value)[:80]


SCALARS: dict[object, ScalarDefinition] = {
    Points: strawberry.scalar(
        name="Points",
        description="Whole points: a JSON integer between -(2^53-1) and 2^53-1.",
        serialize=int,
        parse_value=_parse_points,
        parse_literal=_literal_of(_parse_points),
    ),
    Decimal: strawberry.scalar(
        name="Decimal",
        description='An exact decimal number as a string, such as "0.0105".',
        serialize=_show_decimal,
        parse_value=_parse_decimal,
        parse_literal=_literal_of(_parse_decimal),
    ),
    DateTime: strawberry.scalar(
        name="DateTime",
        description="A moment: RFC 3339, with an offset in, in UTC out.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
        serialize=_show_date_time,
        parse_value=_parse_date_time,
        parse_literal=_literal_of(_parse_date_time),
    ),
    Day: strawberry.scalar(
        name="Date",
        description="A calendar day such as 2026-10-31, in the coalition's time zone.",
        serialize=lambda value: value.isoformat(),
        parse_value=_parse_day,
        parse_literal=_literal_of(_parse_day),
    ),
    YearMonth: strawberry.scalar(
        name="YearMonth",
        description="A settlement month such as 2026-10.",
        serialize=lambda value: value.isoformat()[: len("2026-10")],
        parse_value=_parse_month,
        parse_literal=_literal_of(_parse_month),
    ),
    CurrencyCode: strawberry.scalar(
        name="CurrencyCode",
        description="An ISO 4217 code such as USD.",
        serialize=str,
        parse_value=_parse_currency,
        parse_literal=_literal_of(_parse_currency),
    ),
}

OCCURRED = "When it happened: by a till's clock, which may be a minute ahead, and as long ago as the coalition accepts."
OCCURRED_OR_NOW = f"{OCCURRED[:-1]}; now if not given."

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


SEES_MEMBERSHIPS = requires(
    "members:lookup", "members:enrol", "points:earn", "points:reverse", "points:burn", "points:convert", "profile:read",
    "members:support",
)  # fmt: skip

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


# ---------------------------------------------------------------- money and connections


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


@strawberry.type(directives=[PUBLIC], description="Where a page of a connection ends.")
class PageInfo:
    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
    end_cursor: str | None


T = TypeVar("T")
PAGE_MAX = 1_000


@strawberry.type(directives=[PUBLIC], description="An item of a connection, and the cursor after it.")
class Edge(Generic[T]):
    cursor: str
    node: T


@strawberry.type(directives=[PUBLIC], description="A page of a list that can grow.")
class Connection(Generic[T]):
    nodes: list[T] = strawberry.field(description="The items without their cursors.")
    cursor_of: strawberry.Private[Callable[[int], str]]
    page_info_of: strawberry.Private[tuple[bool, bool]]

    @strawberry.field
    def edges(self) -> list[Edge[T]]:
        return [Edge(cursor=self.cursor_of(n), node=node) for n, node in enumerate(self.nodes)]

    @strawberry.field
    def page_info(self) -> PageInfo:
        has_next_page, has_previous_page = self.page_info_of
        return PageInfo(
            has_next_page=has_next_page,
            has_previous_page=has_previous_page,
            start_cursor=self.cursor_of(0) if self.nodes else None,
            end_cursor=self.cursor_of(len(self.nodes) - 1) if self.nodes else None,
        )


@dataclass(frozen=True, slots=True)
class Page:
    """What was asked of a connection: up to `first` items after a cursor's text."""

    first: int
    after: str | None


def page(first: int, after: str | None) -> Page:
    """Raises BadInput unless `first` is between 1 and PAGE_MAX."""
    if not 1 <= first <= PAGE_MAX:
        raise BadInput(f"first is {first}; it must be between 1 and {PAGE_MAX}.")
    return Page(first, after)


def moment_cursor(at: datetime, id: UUID) -> str:
    """The cursor of an item in an order of moments, and of ids within one."""
    return f"{at.isoformat()}~{id}"


def read_moment_cursor(text: str) -> tuple[datetime, UUID]:
    """Raises BadInput."""
    try:
        at, _, id = text.partition("~")
        return datetime.fromisoformat(at).astimezone(UTC), UUID(id)
    except (ValueError, OverflowError):
        raise no_cursor(text) from None


def no_cursor(text: str) -> BadInput:
    return BadInput(f"after is {text[:60]!r}, which is no cursor of this connection.")


def connection(nodes: Sequence[Any], cursor_of: Callable[[int], str], asked: Page) -> Connection[Any]:
    """The page made of up to `first` of `nodes`; one more than asked for means that there is a next page. `cursor_of` makes
    the cursor of the n-th of them, when somebody asks for it."""
    around = (len(nodes) > asked.first, asked.after is not None)
    return Connection(nodes=list(nodes[: asked.first]), cursor_of=cursor_of, page_info_of=around)
