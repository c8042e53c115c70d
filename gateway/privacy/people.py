"""What is known of a member as a person: encrypted with a key of the member's own, looked up by blind index."""

import unicodedata
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import email_validator
import orjson
import phonenumbers

from gateway.access.vault import Vault
from gateway.cipher import Wrapping, new_key, seal, unseal
from gateway.database import Tx
from gateway.ids import bucket_of
from gateway.refusals import InputNotAccepted
from gateway.statements import load_queries
from gateway.texts import check_text

sql = load_queries(__file__)

NAME_MAX = 200
# RFC 5321, section 4.5.3.1.3, less the brackets. What is longer is not looked at: normalising takes the square of its length.
EMAIL_MAX = 254
PHONE_MAX = 50
AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Person:
    """A name, an e-mail address (lower case, internationalised domain in Unicode), a phone number (E.164)."""

    name: str | None
    email: str | None
    phone: str | None


def normal_email(text: str) -> str:
    """RFC 5321 addresses, normalised, in lower case: nobody's mailbox differs by case alone. Raises InputNotAccepted."""
    try:
        if len(text) > EMAIL_MAX:
            raise email_validator.EmailSyntaxError
        found = email_validator.validate_email(text, check_deliverability=False).normalized
        return unicodedata.normalize("NFC", found.lower())  # what is lower can be composed otherwise
    except email_validator.EmailNotValidError:
        raise InputNotAccepted("That is not an e-mail address.", "email") from None


def normal_phone(text: str) -> str:
    """E.164. Raises InputNotAccepted."""
    try:
        number = phonenumbers.parse(text, None) if len(text) <= PHONE_MAX else None
    except phonenumbers.NumberParseException:
        number = None
    if number is None or not phonenumbers.is_possible_number(number):
        raise InputNotAccepted("Give the phone number with its country: +43 1 234567.", "phone")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _normal_name(text: str) -> str:
    return check_text(" ".join(text.split()), "name", NAME_MAX)


def normal_person(name: str | None, email: str | None, phone: str | None) -> Person:
    """Raises InputNotAccepted."""
    return Person(
        _normal_name(name) if name else None,
        normal_email(email) if email else None,
        normal_phone(phone) if phone else None,
    )


async def store_person(tx: Tx, vault: Vault, member_id: UUID, person: Person, now: datetime) -> None:
    """Keep a person, in place of what was kept before, under a new key."""
    bucket, key = bucket_of(member_id), new_key()
    plain = orjson.dumps({"name": person.name, "email": person.email, "phone": person.phone})
    await tx.run(
        sql.store_person,
        bucket=bucket,
        member=member_id,
        wrapped_key=vault.wrapping.wrap(key, member_id.bytes),
        sealed=seal(key, plain, member_id.bytes),
        now=now,
    )
    found_by = [(field, text) for field, text in (("email", person.email), ("phone", person.phone)) if text is not None]
    await tx.run(sql.forget_lookups, bucket=bucket, member=member_id)
    await tx.run(
        sql.store_lookups,
        fields=[field for field, _ in found_by],
        digests=[vault.blind(field, text) for field, text in found_by],
        bucket=bucket,
        member=member_id,
    )


async def read_person(tx: Tx, vault: Vault, member_id: UUID) -> Person | None:
    """What is known of a member; None where nothing is, or where `tx` may not see it. Raises CannotOpen."""
    row = await tx.one(sql.person, bucket=bucket_of(member_id), member=member_id)
    if row is None:
        return None
    key = vault.wrapping.unwrap(row["wrapped_key"], member_id.bytes)
    return Person(**orjson.loads(unseal(key, row["sealed"], member_id.bytes)))


async def forget_person(tx: Tx, member_id: UUID) -> None:
    """Delete what is known, with its key; the ledger keeps its pseudonyms. A backup holds both until it is deleted."""
    bucket = bucket_of(member_id)
    await tx.run(sql.forget_lookups, bucket=bucket, member=member_id)
    await tx.run(sql.forget_person, bucket=bucket, member=member_id)


async def members_found_by(tx: Tx, vault: Vault, field: str, text: str) -> list[UUID]:
    """Members by an e-mail address or a phone number, however it is written. Raises InputNotAccepted."""
    normal = normal_email(text) if field == "email" else normal_phone(text)
    return [row["member_id"] for row in await tx.all(sql.members_found_by, field=field, digest=vault.blind(field, normal))]


async def rewrap_people(tx: Tx, wrapping: Wrapping) -> int:
    """Wrap every person's key under the first configured key; answers how many. Raises CannotOpen."""
    count, bucket, member = 0, -1, UUID(int=0)
    while rows := await tx.all(sql.people_after, bucket=bucket, member=member, most=AT_ONCE):
        for row in rows:
            bucket, member = row["bucket"], row["member_id"]
            wrapped = wrapping.wrap(wrapping.unwrap(row["wrapped_key"], member.bytes), member.bytes)
            await tx.run(sql.rewrap_person, bucket=bucket, member=member, wrapped_key=wrapped)
        count += len(rows)
    return count
