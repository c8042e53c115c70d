"""The scalars of the schema: what they are read from and shown as. None is ever a float."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal as PyDecimal
from typing import Any, NewType

import strawberry
from graphql import GraphQLError, ValueNode, value_from_ast_untyped
from strawberry.types.scalar import ScalarDefinition

from gateway import points
from gateway.points import BadAmount, read_decimal

Points = NewType("Points", int)
Decimal = NewType("Decimal", PyDecimal)
DateTime = NewType("DateTime", datetime)
Day = NewType("Day", date)
YearMonth = NewType("YearMonth", date)
CurrencyCode = NewType("CurrencyCode", str)

# The driver of the database writes the first and the last moment that Python has as infinitely early and late.
ENDLESS_BEFORE, ENDLESS_AFTER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)

_FINER = re.compile(r"(\.\d{6})\d+")
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII)


def _parse_points(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > points.MAX_POINTS:
        raise GraphQLError(f"Points must be a whole JSON number of at most 2^53-1, not {_shown(value)}.")
    return value


def _show_points(value: int) -> int | str:
    return int(value) if abs(value) <= points.MAX_POINTS else str(int(value))


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
        moment = parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        raise GraphQLError(f"{_shown(value)} is not a moment of the calendar.") from None
    if not ENDLESS_BEFORE < moment < ENDLESS_AFTER:
        raise GraphQLError(f"{_shown(value)} lies at an end of the calendar, where moments are taken for endless.")
    return moment


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
        description="Whole points: a JSON integer between -(2^53-1) and 2^53-1. A sum of a month that is larger is a string of "
        "its digits, as JSON's readers would round it.",
        serialize=_show_points,
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
