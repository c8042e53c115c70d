"""Joins the slices' GraphQL types into one schema."""

from collections.abc import Awaitable, Callable, Mapping
from functools import cache, lru_cache
from typing import Any
from uuid import UUID

import strawberry
from strawberry.federation.schema import FederationAny
from strawberry.federation.schema_directives import RequiresScopes
from strawberry.schema.config import StrawberryConfig
from strawberry.tools import merge_types

from gateway import ids
from gateway.activity.graph import Activity, Expiration, expiry_activity, sees
from gateway.adjustment.graph import Adjustment, AdjustmentMutation, AdjustmentQuery, adjustment_activity, adjustment_node
from gateway.audit.graph import AuditQuery
from gateway.coalition.graph import CoalitionQuery
from gateway.coalition.nodes import contract_node, partner_node, programme_node, store_node
from gateway.context import Info
from gateway.conversion.graph import Conversion, ConversionMutation, ConversionQuery, conversion_activity, quote_node
from gateway.credit.graph import CreditMutation, CreditQuery
from gateway.database import Row, Tx
from gateway.earning.graph import (
    Earning,
    EarningMutation,
    EarningQuery,
    Purchase,
    PurchaseReturn,
    earning_activity,
    earning_activity_of_rows,
    return_activity,
    show_purchase,
)
from gateway.enrolment.graph import EnrolmentMutation
from gateway.graph import PUBLIC, BadInput, Node
from gateway.hold.graph import HoldMutation, hold_node
from gateway.inputs import compile_inputs
from gateway.jobs.graph import JobsMutation, JobsQuery
from gateway.ledger.graph import LedgerQuery
from gateway.ledger.transactions import transactions_by_id
from gateway.members.graph import MembersQuery, member_node, membership_node
from gateway.onboarding.graph import OnboardingMutation
from gateway.privacy.graph import PrivacyMutation
from gateway.redemption.graph import (
    Redemption,
    RedemptionMutation,
    RedemptionReversal,
    redemption_activity,
    reversal_activity,
)
from gateway.scalars import SCALARS
from gateway.settlement.graph import SettlementMutation, SettlementQuery, period_node, statement_node
from gateway.transfer.graph import Transfer, TransferMutation, transfer_activity
from gateway.wallets.graph import WalletSubscription

ACTIVITY: Mapping[str, Callable[[Info, Tx, list[UUID]], Awaitable[Mapping[UUID, Activity]]]] = {
    "earning": earning_activity,
    "return": return_activity,
    "redemption": redemption_activity,
    "reversal": reversal_activity,
    "conversion": conversion_activity,
    "transfer": transfer_activity,
    "adjustment": adjustment_activity,
    "expiry": expiry_activity,
}
ACTIVITY_OF_ROWS: Mapping[str, Callable[[Info, list[Row]], Mapping[UUID, Activity]]] = {"earning": earning_activity_of_rows}


async def transaction_node(info: Info, id: UUID) -> Activity | None:
    """A transaction by id: its member, the partner it happened at, and operators see it."""
    async with info.context.reading() as tx:
        posted = (await transactions_by_id(tx, [id])).get(id)
        if posted is None or not sees(info, posted.member_id, posted.partner_id):
            return None
        return (await info.context.doors.activity[posted.kind](info, tx, [id])).get(id)


async def purchase_node(info: Info, id: UUID) -> Purchase | None:
    """A purchase by id, seen by whom its earning is, which has the same id inside."""
    posted = await transaction_node(info, id)
    return show_purchase(posted.recorded) if isinstance(posted, Earning) else None


NODES: dict[str, Callable[[Info, UUID], Awaitable[Node | None]]] = {
    "sto": store_node,
    "con": contract_node,
    "per": period_node,
    "ptn": partner_node,
    "prg": programme_node,
    "mbs": membership_node,
    "mem": member_node,
    "txn": transaction_node,
    "sta": statement_node,
    "hld": hold_node,
    "pur": purchase_node,
    "quo": quote_node,
    "adj": adjustment_node,
}


async def _found(info: Info, prefix: str, id: UUID) -> Node | None:
    """An object by its id; none for a caller whose scopes open nothing of it, who is not told that it exists either."""
    node: Any = await NODES[prefix](info, id)
    return node if node is not None and _opens(node.__strawberry_definition__, info.context.caller.scopes) else None


@lru_cache(maxsize=1_000)
def _opens(definition: Any, scopes: frozenset[str]) -> bool:
    declared = [d for of in (definition, *definition.fields) for d in of.directives or ()]
    needs = [alternative for d in declared if isinstance(d, RequiresScopes) for alternative in d.scopes]
    return not needs or any(scopes.issuperset(map(str, alternative)) for alternative in needs)


@strawberry.type
class NodeQuery:
    @strawberry.field(directives=[PUBLIC], description="Anything with an id; null if it is not there or not yours to see.")
    async def node(self, info: Info, id: strawberry.ID) -> Node | None:
        prefix = ids.prefix_of(id)
        found = ids.read(prefix, id) if prefix in NODES else None
        return await _found(info, prefix, found) if found else None


# The entities of the federation (`@key(fields: "id")`), by the prefix of their ids.
ENTITIES = {
    "ptn": "Partner",
    "prg": "Programme",
    "mbs": "Membership",
    "mem": "Member",
    "sta": "Statement",
    "sto": "Store",
    "con": "Contract",
    "per": "Period",
}
REPRESENTATIONS_MAX = 1_000


class GatewaySchema(strawberry.federation.Schema):
    """Strawberry's schema, with entities found as `node` finds them: what is not there, or not the caller's, is null.

    Strawberry's own resolver fails the whole request for one unknown type, and asks nobody whether an entity may be seen.
    """

    async def entities_resolver(  # type: ignore[override]
        self, info: Info, representations: list[FederationAny]
    ) -> list[FederationAny]:
        if len(representations) > REPRESENTATIONS_MAX:
            raise BadInput(f"representations holds {len(representations)} items; {REPRESENTATIONS_MAX} at most are answered.")
        return [await _entity(info, representation) for representation in representations]  # type: ignore[misc]


async def _entity(info: Info, representation: Any) -> Node | None:
    if not isinstance(representation, dict):
        return None
    type_name, text = representation.get("__typename"), representation.get("id")
    prefix = ids.prefix_of(text) if isinstance(text, str) else ""
    if not isinstance(text, str) or ENTITIES.get(prefix) != type_name:
        return None
    found = ids.read(prefix, text)
    return await _found(info, prefix, found) if found is not None else None


def schema_text() -> str:
    """The text of the contract, sorted: what `schema.graphql` holds."""
    return create_schema(sort=True).as_str() + "\n"


def create_schema(sort: bool = False) -> strawberry.federation.Schema:
    """The whole contract. Sorting is for its text alone: graphql-core rebuilds the types and loses Strawberry's enums."""
    queries = (
        NodeQuery,
        MembersQuery,
        CoalitionQuery,
        CreditQuery,
        EarningQuery,
        ConversionQuery,
        AdjustmentQuery,
        SettlementQuery,
        LedgerQuery,
        AuditQuery,
        JobsQuery,
    )
    query = merge_types("Query", queries)
    mutation = merge_types(
        "Mutation",
        (
            EarningMutation,
            RedemptionMutation,
            HoldMutation,
            ConversionMutation,
            TransferMutation,
            AdjustmentMutation,
            EnrolmentMutation,
            PrivacyMutation,
            OnboardingMutation,
            CreditMutation,
            SettlementMutation,
            JobsMutation,
        ),
    )
    schema = GatewaySchema(
        query=query,
        mutation=mutation,
        subscription=merge_types("Subscription", (WalletSubscription,)),
        types=[Earning, PurchaseReturn, Redemption, RedemptionReversal, Conversion, Transfer, Adjustment, Expiration],
        federation_version="2.9",
        config=StrawberryConfig(scalar_map=SCALARS, sort_schema=sort),
    )
    compile_inputs(schema)
    _print_once(schema)
    return schema


def _print_once(schema: GatewaySchema) -> None:
    """The text for routers of the federation, which Strawberry prints anew for everybody who asks."""
    text = cache(schema.as_str)
    service: Any = schema._schema.type_map["_Service"]
    service.fields["sdl"].resolve = lambda source, info: text()
