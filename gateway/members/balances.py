"""Balances as partners' own systems tell them."""

import asyncio
from collections import Counter
from uuid import UUID

from gateway.coalition.connector import Connector, PartnerSilent
from gateway.members.lookup import Membership

ASKS_AT_ONCE = 4


class Balances:
    """What partners' systems were asked in one request: each balance once, whatever its other names, and a few at a time."""

    def __init__(self) -> None:
        self._asked: dict[tuple[UUID, str], asyncio.Task[int]] = {}
        self._waiting: Counter[tuple[UUID, str]] = Counter()
        self._silent: set[UUID] = set()
        self._turns = asyncio.Semaphore(ASKS_AT_ONCE)

    async def ask(self, connector: Connector, membership: Membership) -> int:
        """A balance in the partner's own currency. Raises PartnerSilent, PartnerRefused."""
        account = membership.partner_id, membership.external_id
        asked = self._asked.get(account)
        if asked is None:
            asked = self._asked[account] = asyncio.create_task(self._ask(connector, membership))
            asked.add_done_callback(lambda done: done.cancelled() or done.exception())  # told to those who wait, if any
        self._waiting[account] += 1
        try:
            return await asyncio.shield(asked)
        finally:
            self._waiting[account] -= 1
            if not self._waiting[account]:
                asked.cancel()  # where nobody waits any more, nobody is asked

    async def _ask(self, connector: Connector, membership: Membership) -> int:
        async with self._turns:
            if membership.partner_id in self._silent:
                raise PartnerSilent("The partner's system did not answer a moment ago.")
            try:
                return await connector.balance(membership.external_id)
            except PartnerSilent:
                self._silent.add(membership.partner_id)
                raise
