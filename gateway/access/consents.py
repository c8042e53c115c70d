"""Consents: what a member allows a partner to see and to do in its name, until it is withdrawn."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson

from gateway.access.revocations import revoke
from gateway.access.scopes import DELEGABLE
from gateway.database import Row, Tx
from gateway.ids import bucket_of, new_id_in
from gateway.refusals import StateConflict
from gateway.statements import load_queries

sql = load_queries(__file__, "consents.sql")

STANDING_MAX = WITHDRAWN_MAX = 50
# The wording of the consent page; whoever changes it changes this, and what was agreed to before stays known.
NOTICE_VERSION = "2026-11"
DATA_CLASSES = {
    "contact": "your name, e-mail address and phone number",
}


@dataclass(frozen=True, slots=True)
class Consent:
    """A consent as it was given, and when it was withdrawn if it was; how it was given is kept beside it, as evidence."""

    id: UUID
    member_id: UUID
    partner_id: UUID
    purpose: str
    scopes: frozenset[str]
    data_classes: frozenset[str]
    notice_version: str
    granted_at: datetime
    withdrawn_at: datetime | None


async def grant(
    tx: Tx, member_id: UUID, partner_id: UUID, purpose: str, scopes: frozenset[str], data_classes: frozenset[str],
    evidence: dict[str, str], now: datetime,
) -> Consent:  # fmt: skip
    """Store a consent. The same one given again is the one that stands; another for the same purpose takes its place, and
    ends what was given under it. Raises StateConflict where STANDING_MAX others stand."""
    bucket = bucket_of(member_id)
    await decide_alone(tx, member_id)
    standing = await standing_consents(tx, member_id)
    before = [each for each in standing if each.partner_id == partner_id and each.purpose == purpose]
    agreed = (scopes & DELEGABLE, data_classes & DATA_CLASSES.keys(), NOTICE_VERSION)
    for each in before:
        if (each.scopes, each.data_classes, each.notice_version) == agreed:
            return each
    if not before and len(standing) >= STANDING_MAX:
        raise StateConflict(f"{len(standing)} consents stand, as many as a member can give; withdraw one first.")
    for each in before:
        await withdraw(tx, member_id, each.id, now)
    consent_id = new_id_in(bucket)
    await tx.run(
        sql.store_consent,
        bucket=bucket,
        consent_id=consent_id,
        member=member_id,
        partner=partner_id,
        purpose=purpose,
        scopes=sorted(scopes & DELEGABLE),
        data_classes=sorted(data_classes & DATA_CLASSES.keys()),
        notice_version=NOTICE_VERSION,
        evidence=orjson.dumps(evidence).decode(),
        now=now,
    )
    found = await consent_by_id(tx, consent_id)
    assert found is not None
    return found


async def consent_by_id(tx: Tx, consent_id: UUID) -> Consent | None:
    """One consent, withdrawn or not."""
    row = await tx.one(sql.consent_by_id, bucket=bucket_of(consent_id), consent_id=consent_id)
    return _consent(row) if row is not None else None


async def live_consent(tx: Tx, member_id: UUID, partner_id: UUID, scopes: Collection[str]) -> Consent | None:
    """The latest consent that stands, of those that cover these scopes if there is one."""
    row = await tx.one(
        sql.live_consent, bucket=bucket_of(member_id), member=member_id, partner=partner_id, scopes=sorted(scopes)
    )
    return _consent(row) if row is not None else None


async def standing_consents(tx: Tx, member_id: UUID) -> list[Consent]:
    """What a member allows now, the latest first."""
    return [_consent(row) for row in await tx.all(sql.standing_consents, bucket=bucket_of(member_id), member=member_id)]


async def consents_of(tx: Tx, member_id: UUID) -> list[Consent]:
    """What a member allows now, and the latest WITHDRAWN_MAX that it allowed once; the latest first."""
    bucket = bucket_of(member_id)
    rows = await tx.all(sql.withdrawn_consents, bucket=bucket, member=member_id, most=WITHDRAWN_MAX)
    both = await standing_consents(tx, member_id) + [_consent(row) for row in rows]
    return sorted(both, key=lambda each: (each.granted_at, each.id), reverse=True)


async def decide_alone(tx: Tx, member_id: UUID) -> None:
    """Until the transaction ends nobody else changes this member's consents. It comes before the audit log is written, whose
    end everybody locks."""
    await tx.run(sql.decide_alone, bucket=bucket_of(member_id), member=member_id)


async def withdraw(tx: Tx, member_id: UUID, consent_id: UUID, now: datetime) -> Consent | None:
    """End a consent of a member and every token that was given under it; None where there is none."""
    bucket = bucket_of(consent_id)
    await decide_alone(tx, member_id)
    row = await tx.one(sql.withdraw_consent, bucket=bucket, consent_id=consent_id, member=member_id, now=now)
    if row is None:
        return None
    await tx.run(sql.end_families_of_consent, consent_id=consent_id, now=now)
    await revoke(tx, f"consent:{consent_id}", now)
    return _consent(row)


def _consent(row: Row) -> Consent:
    return Consent(
        row["consent_id"],
        row["member_id"],
        row["partner_id"],
        row["purpose"],
        frozenset(row["scopes"]),
        frozenset(row["data_classes"]),
        row["notice_version"],
        row["granted_at"],
        row["withdrawn_at"],
    )


async def withdraw_all(tx: Tx, member_id: UUID, now: datetime) -> None:
    """End whatever a member has allowed anybody."""
    await decide_alone(tx, member_id)
    for each in await standing_consents(tx, member_id):
        await withdraw(tx, member_id, each.id, now)
