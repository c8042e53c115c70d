"""The yardstick S: a bare Strawberry application with its parse and validation caches, on the same uvicorn.

`nothing` is a mutation that does nothing; `me` a query that returns JSON read from the file BARE_JSON, typed as a tree of
Strawberry types of the same shape as the gateway's answer.
"""

import os

import orjson
import strawberry
from strawberry.asgi import GraphQL
from strawberry.extensions import ParserCache, ValidationCache


@strawberry.type
class Programme:
    code: str


@strawberry.type
class Wallet:
    programme: Programme
    available: int
    pending: int
    held: int
    owed: int


@strawberry.type
class Activity:
    id: str
    points: int
    occurred_at: str
    period: str


@strawberry.type
class Page:
    nodes: list[Activity]


@strawberry.type
class Member:
    id: str
    wallets: list[Wallet]
    page: strawberry.Private[Page]

    @strawberry.field
    def activity(self, first: int) -> Page:
        return self.page


def _me() -> Member:
    said = orjson.loads(os.environ.get("BARE_JSON", '{"id": "", "wallets": [], "activity": {"nodes": []}}'))
    wallets = [Wallet(**{**w, "programme": Programme(**w["programme"])}) for w in said["wallets"]]
    nodes = [
        Activity(id=a["id"], points=a["points"], occurred_at=a["occurredAt"], period=a["period"])
        for a in said["activity"]["nodes"]
    ]
    return Member(id=said["id"], wallets=wallets, page=Page(nodes=nodes))


ME = _me()


@strawberry.type
class Query:
    @strawberry.field
    def me(self) -> Member:
        return ME


@strawberry.input
class NothingInput:
    key: str


@strawberry.type
class NothingPayload:
    done: bool


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def nothing(self, input: NothingInput) -> NothingPayload:
        return NothingPayload(done=True)


app = GraphQL(strawberry.Schema(Query, Mutation, extensions=[ParserCache, ValidationCache]))
