"""Identifiers: UUIDv7 inside, TypeIDs outside.

Ids of what belongs to a member end in the byte of the member's bucket, so that an id alone says in which
bucket its row lies (design, section 4).
"""

from typing import NewType
from uuid import UUID

import uuid_utils
from typeid import TypeID
from typeid.base32 import encode
from typeid.errors import TypeIDException

Bucket = NewType("Bucket", int)


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562, section 5.7)."""
    return UUID(bytes=uuid_utils.uuid7().bytes)


def new_id_in(bucket: int) -> UUID:
    """A UUIDv7 whose last byte is `bucket` (0 to 255)."""
    return UUID(int=uuid_utils.uuid7().int & ~0xFF | bucket)


def bucket_of(id: UUID) -> Bucket:
    """The bucket, 0 to 255, of a member or of anything that belongs to one."""
    return Bucket(id.int & 0xFF)


def show(prefix: str, id: UUID) -> str:
    """The outside form of an id: `txn_01h455vb4pex5vsknk084sn02q`."""
    return f"{prefix}_{encode(id.bytes)}"


def read(prefix: str, text: str) -> UUID | None:
    """The id behind its outside form; None when it is malformed or of another kind."""
    try:
        typed = TypeID.from_string(text)
    except (TypeIDException, ValueError):
        return None
    return UUID(bytes=typed.uuid.bytes) if typed.prefix == prefix else None


def prefix_of(text: str) -> str:
    """What kind of id a text claims to be; empty when it has no prefix."""
    return text.rpartition("_")[0]
