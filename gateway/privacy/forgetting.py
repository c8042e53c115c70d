"""Forgetting a member as a person, whoever asks for it."""

from datetime import datetime
from uuid import UUID

from gateway.access import accounts, consents
from gateway.database import Tx
from gateway.privacy import people


async def lock(tx: Tx, member_id: UUID) -> None:
    """Nobody logs in as this member, and then nobody decides for it, until the transaction ends (the order of `lock_logins`)."""
    await accounts.lock_logins(tx, member_id)
    await consents.decide_alone(tx, member_id)


async def forget(tx: Tx, member_id: UUID, now: datetime) -> None:
    """What is known of the person goes, with its key, its logins and tokens, and all that it allowed anybody; after `lock`."""
    await people.forget_person(tx, member_id)
    await accounts.forget_logins(tx, member_id, now)
    await consents.withdraw_all(tx, member_id, now)
