"""The port to partners' own systems: what the gateway asks of them, and what may come back."""

from dataclasses import dataclass
from typing import Protocol


class PartnerSilent(RuntimeError):
    """The partner's system gave no answer, so whether it acted is not known: ask again with the same reference.

    Its text is the connector's own, for the log, and holds nothing of anybody.
    """


class PartnerUnreached(PartnerSilent):
    """The request did not reach the partner's system, so it cannot have acted."""


class PartnerRefused(RuntimeError):
    """The partner's system said no. Why is for the partner to tell, whose words may be of its customer: they are kept nowhere."""


@dataclass(frozen=True, slots=True)
class Credit:
    """Points that the partner's system has credited, under its own `reference`."""

    reference: str
    balance: int


class Connector(Protocol):
    """A partner's own system. Every call may raise PartnerSilent; none is made inside a database transaction."""

    async def credit(self, account: str, points: int, reference: str) -> Credit:
        """Credit whole points of the partner's currency to one of its accounts.

        The same `reference` credits once, however often it is sent. Raises PartnerSilent, PartnerRefused.
        """

    async def balance(self, account: str) -> int:
        """The account's points in the partner's own currency. Raises PartnerSilent, PartnerRefused."""

    async def close(self) -> None:
        """Let connections go."""
