"""Balances as partners' own systems tell them."""

import asyncio
from collections import Counter
from uuid import UUID

from gateway.coalition.connector import Connector, PartnerSilent
from gateway.members.lookup import Membership


class Balances:
    """What partners' systems were asked in one request: each balance once, whatever its other names."""

    def __init__(self) -> None:
        self._asked: dict[tuple[UUID, str], asyncio.Task[int]] = {}
        self._waiting: Counter[tuple[UUID, str]] = Counter()
        self._silent: set[UUID] = set()

    async def ask(self, connector: Connector, membership: Membership, share: asyncio.Semaphore) -> int:
        """A balance in the partner's own currency, asked for within a `share` of what may be asked at once.

        Raises PartnerSilent, PartnerRefused.
        """
        account = membership.partner_id, membership.external_id
        asked = self._asked.get(account)
        if asked is None or asked.cancelled():
            asked = self._asked[account] = asyncio.create_task(self._ask(connector, membership, share))
            asked.add_done_callback(lambda done: done.cancelled() or done.exception())  # told to those who wait, if any
        self._waiting[account] += 1
        try:
            return await asyncio.shield(asked)
        finally:
            self._waiting[account] -= 1
            if not self._waiting[account] and not asked.done():
                asked.cancel()  # where nobody waits any more, nobody is asked
                del self._asked[account]

    async def _ask(self, connector: Connector, membership: Membership, share: asyncio.Semaphore) -> int:
        async with share:
            if membership.partner_id in self._silent:
                raise PartnerSilent("The partner's system did not answer a moment ago.")
            try:
                return await connector.balance(membership.external_id)
            except PartnerSilent:
                self._silent.add(membership.partner_id)
                raise
