"""Of what a process has few of, one party has so many at once, so that there is always some for everybody else."""

from asyncio import Semaphore
from contextvars import ContextVar
from uuid import UUID
from weakref import WeakValueDictionary

PARTY: ContextVar[UUID | None] = ContextVar("party", default=None)
"""For whom the task at hand works: `Caller.party`; None for the gateway itself, whose own jobs all of it is for."""

STRANGERS = UUID(int=0)
"""All who have not said yet who they are, at the login and the authorization server."""


class Shares:
    """A share of something for each party. One is kept for as long as somebody holds it or waits for it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of: WeakValueDictionary[UUID | None, Semaphore] = WeakValueDictionary()

    def own(self) -> Semaphore:
        """What the task at hand holds while it uses one."""
        party = PARTY.get()
        if party is None:
            return Semaphore()
        share = self._of.get(party)
        if share is None:
            share = self._of[party] = Semaphore(self._most)
        return share
