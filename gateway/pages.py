"""Connections: the pages of lists that can grow, and the cursors between them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

import strawberry

from gateway.graph import PUBLIC, BadInput

T = TypeVar("T")
PAGE_MAX = 1_000


@strawberry.type(directives=[PUBLIC], description="Where a page of a connection ends.")
class PageInfo:
    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
    end_cursor: str | None


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
