"""Forgetting a member as a person, whoever asks for it."""

from datetime import datetime
from uuid import UUID

from gateway.access import accounts, consents
from gateway.database import Tx
from gateway.privacy import people


async def forget(tx: Tx, member_id: UUID, now: datetime) -> None:
    """What is known of the person goes, with its key, its logins and tokens, and all that it allowed anybody."""
    await accounts.lock_logins(tx, member_id)
    await consents.decide_alone(tx, member_id)
    await people.forget_person(tx, member_id)
    await accounts.forget_logins(tx, member_id, now)
    await consents.withdraw_all(tx, member_id, now)
