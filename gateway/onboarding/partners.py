"""Partners and their stores, one by one or from files with their contracts."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from gateway.addresses import split_address
from gateway.coalition.catalogue import read_coalition
from gateway.database import Tx
from gateway.ids import new_id
from gateway.onboarding.contracts import NewContract, check_unchanged, publish_contract
from gateway.onboarding.programmes import sql
from gateway.refusals import InputNotAccepted, Refused
from gateway.texts import check_name
from partners.protocols import PROTOCOLS

# The coalition's own name in statements, and the list of a month's files.
RESERVED_CODES = ("coalition", "manifest")


class NotOnboarded(RuntimeError):
    """One of several partners, or one of its contracts, was refused: `partner`, the position of its contract or None, and
    the refusal itself."""

    def __init__(self, partner: str, contract: int | None, refused: Refused) -> None:
        super().__init__(refused.message)
        self.partner, self.contract, self.refused = partner, contract, refused


@dataclass(frozen=True, slots=True)
class NewPartner:
    """A partner as its `partner.toml` or the operator describes it.

    A `protocol` or an `endpoint` that is None stays as it is known, unless the partner is `disconnected`.
    """

    code: str
    name: str
    protocol: str | None = None
    endpoint: str | None = None
    disconnected: bool = False
    stores: tuple[tuple[str, str], ...] = ()
    contracts: tuple[NewContract, ...] = field(default=())


async def onboard_partner(tx: Tx, new: NewPartner, now: datetime) -> UUID:
    """Create a partner with its stores, or bring what is known of it up to date; answers its id.

    Contracts are published apart, since they need the programmes, whose issuer may be this partner.
    Raises InputNotAccepted.
    """
    if not new.code.isascii() or not new.code.islower() or not new.code.replace("_", "").replace("-", "").isalnum():
        raise InputNotAccepted(f"The partner code {new.code!r} must be lower-case letters and digits.", "code")
    if not 2 <= len(new.code) <= 31 or not new.code[0].isalpha():
        raise InputNotAccepted(f"The partner code {new.code!r} must begin with a letter and have 2 to 31.", "code")
    if new.code in RESERVED_CODES:
        raise InputNotAccepted(f"{new.code!r} stands for something else in statements and their files.", "code")
    check_name(new.name, "name")
    _check_connection(new)
    codes = [code for code, _ in new.stores]
    for position, (code, name) in enumerate(new.stores):
        if code in codes[:position]:
            raise InputNotAccepted(f"The store code {code[:40]!r} is used twice.", "stores", str(position), "code")
        check_name(code, "code", "stores", str(position))
        check_name(name, "name", "stores", str(position))
    partner_id: UUID = await tx.value(
        sql.store_partner,
        partner_id=new_id(),
        code=new.code,
        name=new.name,
        protocol=new.protocol,
        endpoint=new.endpoint,
        disconnected=new.disconnected,
        onboarded_at=now,
    )
    for code, name in new.stores:
        await tx.run(sql.store_store, store_id=new_id(), partner_id=partner_id, code=code, name=name)
    return partner_id


def _check_connection(new: NewPartner) -> None:
    """A partner's own system has a protocol that is spoken here and an address; one that is disconnected has neither."""
    if new.disconnected and (new.protocol or new.endpoint):
        told = "A protocol and an endpoint go together: null for one of them takes both away."
        raise InputNotAccepted(told, "protocol" if new.protocol else "endpoint")
    if new.protocol is not None and new.protocol not in PROTOCOLS:
        told = f"The protocol {new.protocol[:40]!r} is not spoken here; there are {', '.join(sorted(PROTOCOLS))}."
        raise InputNotAccepted(told, "protocol")
    try:
        address = split_address(new.endpoint or "http://none")
        usable = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InputNotAccepted(f"{(new.endpoint or '')[:80]!r} is no address such as https://loyalty.example/api.", "endpoint")


async def onboard_from_files(tx: Tx, described: list[NewPartner], now: datetime) -> list[UUID]:
    """Onboard partners with their stores, and publish those of their contracts that are not published yet; answers their ids.

    Raises NotOnboarded, which says whose description was refused.
    """
    partner_ids: list[UUID] = []
    for new in described:
        try:
            partner_ids.append(await onboard_partner(tx, new, now))
        except Refused as refused:
            raise NotOnboarded(new.code, None, refused) from None
    coalition = await read_coalition(tx)
    for partner_id, new in zip(partner_ids, described, strict=True):
        for position, contract in sorted(enumerate(new.contracts), key=lambda each: each[1].valid_from):
            published = coalition.contracts.get((partner_id, contract.currency), ())
            before = next((c for c in published if c.valid_from == contract.valid_from), None)
            try:
                if before is None:
                    await publish_contract(tx, coalition, partner_id, contract, now)
                else:
                    check_unchanged(contract, before)
            except Refused as refused:
                raise NotOnboarded(new.code, position, refused) from None
    return partner_ids
