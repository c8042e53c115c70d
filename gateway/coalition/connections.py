"""Connections to partners' own systems, made as they are needed."""

from collections.abc import Callable, Mapping
from uuid import UUID

from gateway.coalition.catalogue import Catalogue
from gateway.coalition.connector import Connector
from gateway.parties import Shares

ASKS_OF_ONE = CREDITS_OF_ONE = 4


class Connections:
    """One connector for each protocol and endpoint that a partner has; a partner that is onboarded or moves while the
    gateway runs is reached at once."""

    def __init__(self, catalogue: Catalogue, protocols: Mapping[str, Callable[[str], Connector]]) -> None:
        self._catalogue, self._protocols = catalogue, protocols
        self._open: dict[tuple[str, str], Connector] = {}
        self.asked = Shares(ASKS_OF_ONE)
        """What one party may ask partners' systems at once, of what they need not be asked."""

        self.crediting = Shares(CREDITS_OF_ONE)
        """What one party may have partners' systems credit at once."""

    async def of(self, partner_id: UUID) -> Connector | None:
        """The connector of a partner, None where it has no system of its own. Raises NoCoalition, DatabaseAway."""
        partner = (await self._catalogue.current()).partners.get(partner_id)
        if partner is None or partner.protocol is None or partner.protocol not in self._protocols or not partner.endpoint:
            return None
        where = (partner.protocol, partner.endpoint)
        if where not in self._open:
            self._open[where] = self._protocols[partner.protocol](partner.endpoint)
        return self._open[where]

    async def close(self) -> None:
        """Let all of them go."""
        for connector in self._open.values():
            await connector.close()
