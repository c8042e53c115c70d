"""Connections to partners' own systems, made as they are needed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from uuid import UUID

from gateway.coalition.catalogue import Catalogue
from gateway.coalition.connector import Connector, PartnerUnreached
from gateway.parties import Shares

ASKS_OF_ONE = 4
CREDITS_OF_ONE, CREDITING_SECONDS = 8, 2.0


class Connections:
    """One connector for each protocol and endpoint that a partner has; a partner that is onboarded or moves while the
    gateway runs is reached at once."""

    def __init__(self, catalogue: Catalogue, protocols: Mapping[str, Callable[[str], Connector]]) -> None:
        self._catalogue, self._protocols = catalogue, protocols
        self._open: dict[tuple[str, str], Connector] = {}
        self.asked = Shares(ASKS_OF_ONE)
        """What one party may ask partners' systems at once, of what they need not be asked."""

        self._crediting: dict[UUID, Shares] = {}

    async def of(self, partner_id: UUID) -> Connector | None:
        """The connector of a partner, None where it has no system of its own. Raises NoCoalition, DatabaseAway."""
        partner = (await self._catalogue.current()).partners.get(partner_id)
        if partner is None or partner.protocol is None or partner.protocol not in self._protocols or not partner.endpoint:
            return None
        where = (partner.protocol, partner.endpoint)
        if where not in self._open:
            self._open[where] = self._protocols[partner.protocol](partner.endpoint)
        return self._open[where]

    @asynccontextmanager
    async def crediting(self, partner_id: UUID) -> AsyncIterator[Connector]:
        """The connector of a partner, while one of what a party may have its system credit at once is in use.

        Raises PartnerUnreached where there is none for CREDITING_SECONDS, or no connector; NoCoalition, DatabaseAway.
        """
        connector = await self.of(partner_id)
        if connector is None:
            raise PartnerUnreached("No connection to this partner's system is configured.")
        share = self._crediting.setdefault(partner_id, Shares(CREDITS_OF_ONE)).own()
        try:
            async with asyncio.timeout(CREDITING_SECONDS):
                await share.acquire()
        except TimeoutError:
            raise PartnerUnreached("Too many exchanges of one party are under way with this partner.") from None
        try:
            yield connector
        finally:
            share.release()

    async def close(self) -> None:
        """Let all of them go."""
        for connector in self._open.values():
            await connector.close()
