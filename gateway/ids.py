"""Identifiers: UUIDv7 inside, TypeIDs outside.

Ids of what belongs to a member end in the byte of the member's bucket, so that an id alone says in which
bucket its row lies (decision 0001).
"""

import re
from collections.abc import Mapping
from typing import NewType
from uuid import UUID

import uuid_utils
from typeid import TypeID
from typeid.base32 import encode
from typeid.errors import TypeIDException

Bucket = NewType("Bucket", int)

LAST_ID = UUID(int=2**128 - 1)

_OUTSIDE = re.compile(r"\b[a-z]{3}_[0-7][0-9a-hjkmnp-tv-z]{25}\b")


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


def named_in(*said: object) -> list[str]:
    """The ids in their outside form, of whatever kind, that stand in texts, lists and mappings, each once, in the order in
    which they are met; also inside of a text, as literals of a document do."""
    found: dict[str, None] = {}
    left = list(reversed(said))
    while left:
        each = left.pop()
        if isinstance(each, str):
            found |= dict.fromkeys(_OUTSIDE.findall(each))
        elif isinstance(each, Mapping):
            left.extend(reversed(list(each.values())))
        elif isinstance(each, list | tuple):
            left.extend(reversed(each))
    return list(found)
