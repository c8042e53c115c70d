"""What the coalition has by id, as far as the caller may see it: for `node` and for routers of the federation."""

from uuid import UUID

from gateway.coalition.graph import Contract, Partner, Programme, Store, show_contract, show_partner, show_programme
from gateway.context import Info
from gateway.graph import show_id


async def partner_node(info: Info, id: UUID) -> Partner | None:
    """A partner by id: the operator sees each, a partner itself."""
    context = info.context
    partner = context.coalition.partners.get(id)
    allowed = context.caller.kind == "operator" or context.caller.partner_id == id
    return show_partner(partner) if partner and allowed else None


async def store_node(info: Info, id: UUID) -> Store | None:
    """A store by id: its own partner and operators see it."""
    caller = info.context.caller
    found = info.context.coalition.stores_by_id.get(id)
    if found is None or not (caller.kind == "operator" or found.partner_id == caller.partner_id):
        return None
    return Store(id=show_id("sto", found.id), code=found.code, name=found.name)


async def contract_node(info: Info, id: UUID) -> Contract | None:
    """A contract by id: its own partner and operators see it."""
    caller, coalition = info.context.caller, info.context.coalition
    found = coalition.contracts_by_id.get(id)
    if found is None or not (caller.kind == "operator" or found.partner_id == caller.partner_id):
        return None
    return show_contract(coalition, found)


async def programme_node(info: Info, id: UUID) -> Programme | None:
    """A programme by id; programmes are public."""
    programme = info.context.coalition.programmes.get(id)
    return show_programme(programme) if programme else None
