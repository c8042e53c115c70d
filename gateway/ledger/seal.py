"""Sealing: transactions become leaves of Merkle trees, whose roots are chained and signed, off the hot path."""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

import orjson

from gateway.database import Database, Row, Tx
from gateway.ids import bucket_of
from gateway.ledger import merkle
from gateway.ledger.post import sql

BATCHES_AT_ONCE = 200
LEAVES_ENOUGH = 5_000
FIRST = bytes(32)
"""What the first block has in place of a hash before it."""


class Signer(Protocol):
    """Signs with the key in use, and checks with any key this gateway has had."""

    @property
    def key_id(self) -> str: ...

    def sign(self, content: bytes) -> bytes:
        """An ES256 signature (RFC 7518, section 3.4): r and s, 32 bytes each."""
        ...

    def is_signed(self, content: bytes, signature: bytes, key_id: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Block:
    """A sealed run of transactions."""

    height: int
    previous_hash: bytes
    merkle_root: bytes
    leaves: int
    sealed_at: datetime
    hash: bytes
    key_id: str
    signature: bytes

    @property
    def header(self) -> bytes:
        """What is hashed and signed: JSON with sorted keys and no spaces."""
        return _json(
            {
                "height": self.height,
                "leaves": self.leaves,
                "merkle_root": self.merkle_root.hex(),
                "previous_hash": self.previous_hash.hex(),
                "sealed_at": self.sealed_at.astimezone(UTC).isoformat(),
            }
        )


async def seal(database: Database, signer: Signer, now: datetime) -> int:
    """Seal what was posted since the last block; answers how many transactions. One block a call.

    Only what every running transaction can no longer come before is sealed, so no commit is passed over.
    """
    async with database.transaction() as tx:
        last = await tx.one(sql.last_block)
        after = str(last["through_xid"]) if last else "0"
        through = await tx.value(sql.sealable_through, after=after, most=BATCHES_AT_ONCE, leaves=LEAVES_ENOUGH)
        if through is None:
            return 0
        transactions = [
            id
            for row in await tx.all(sql.batches_between, after=after, through=str(through))
            for id in row["transactions"]
        ]
        buckets = [bucket_of(id) for id in transactions]
        leaves = await tx.value(sql.leaf_hashes, buckets=buckets, transactions=transactions)
        block = _block(last, leaves, now, signer)
        # False: another process sealed this height in this very moment, and there is nothing left to do here.
        (kept,) = await tx.post(
            sql.seal_block,
            height=block.height,
            previous=block.previous_hash,
            root=block.merkle_root,
            through=str(through),
            at=now,
            hash=block.hash,
            key_id=block.key_id,
            signature=block.signature,
            buckets=buckets,
            transactions=transactions,
            leaves=leaves,
        )
    return len(transactions) if kept else 0


def _block(last: Row | None, leaves: Sequence[bytes], now: datetime, signer: Signer) -> Block:
    unsigned = Block(
        height=last["height"] + 1 if last else 1,
        previous_hash=last["hash"] if last else FIRST,
        merkle_root=merkle.Tree(b"".join(leaves)).root,
        leaves=len(leaves),
        sealed_at=now,
        hash=b"",
        key_id=signer.key_id,
        signature=b"",
    )
    header = unsigned.header
    return Block(
        unsigned.height, unsigned.previous_hash, unsigned.merkle_root, unsigned.leaves, now,
        hashlib.sha256(header).digest(), signer.key_id, signer.sign(header),
    )  # fmt: skip


async def contents_of(tx: Tx, transactions: Sequence[UUID]) -> dict[UUID, bytes]:
    """The canonical JSON of transactions with their entries."""
    rows = await tx.all(sql.sealed_contents, buckets=[bucket_of(id) for id in transactions], transactions=list(transactions))
    # A time that no JSON can say has no content, and so is not what was sealed.
    return {row["transaction_id"]: row["content"].encode() for row in rows if row["content"] is not None}


def _json(content: Mapping[str, Any]) -> bytes:
    """JSON with sorted keys and no spaces."""
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)


def read_block(row: Row) -> Block:
    """The block in a row."""
    return Block(
        row["height"], row["previous_hash"], row["merkle_root"], row["leaves"], row["sealed_at"], row["hash"],
        row["key_id"], row["signature"],
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mark:
    """A block as somebody has noted it elsewhere: who owns the database can make a chain anew, and not this."""

    height: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.height}:{self.hash.hex()}"

    @classmethod
    def read(cls, text: str) -> "Mark":
        """Raises ValueError, also for what can be no block."""
        height, _, digest = text.partition(":")
        mark = cls(int(height), bytes.fromhex(digest))
        if mark.height < 1 or len(mark.hash) != hashlib.sha256().digest_size:
            raise ValueError(f"{text} is no block")
        return mark


async def last_mark(database: Database) -> Mark | None:
    """The last block, to be noted elsewhere; None while there is none."""
    async with database.reading() as tx:
        row = await tx.one(sql.last_block)
    return Mark(row["height"], row["hash"]) if row is not None else None


async def verify_chain(
    database: Database, signer: Signer, known: Mark | None = None
) -> AsyncIterator[tuple[int, int, str | None]]:
    """Walk every block: (height, transactions, what is wrong with it or None). The last answer, of height 0, says how
    many transactions that should be sealed are not, or that a block is gone that is `known` to have been there."""
    async with database.snapshot() as tx:
        previous, height = FIRST, 0
        while (row := await tx.one(sql.block_at, height=height + 1)) is not None:
            block = read_block(row)
            fault = await _fault(tx, block, previous, signer)
            if known is not None and block.height == known.height and block.hash != known.hash:
                fault = fault or "it is another block than the one that is known"
            yield block.height, block.leaves, fault
            previous, height = block.hash, block.height
        missing = await tx.value(sql.unsealed_before_last)
        fault = f"{missing} transactions are missing from the sealed ledger" if missing else None
        if known is not None and height < known.height:
            fault = f"block {known.height}, which is known, is gone: the chain ends with block {height}"
        yield 0, missing, fault


async def _fault(tx: Tx, block: Block, previous: bytes, signer: Signer) -> str | None:
    if block.previous_hash != previous:
        return "it does not follow the block before it"
    if hashlib.sha256(block.header).digest() != block.hash:
        return "its header does not match its hash"
    if not signer.is_signed(block.header, block.signature, block.key_id):
        return "its signature is not the gateway's"
    leaves = await tx.all(sql.leaves_of_block, height=block.height)
    if len(leaves) != block.leaves or merkle.Tree(b"".join(leaf["leaf"] for leaf in leaves)).root != block.merkle_root:
        return "its leaves do not match its root"
    contents = await contents_of(tx, [leaf["transaction_id"] for leaf in leaves])
    for leaf in leaves:
        content = contents.get(leaf["transaction_id"])
        if content is None or merkle.leaf_hash(content) != leaf["leaf"]:
            return f"transaction {leaf['transaction_id']} is not what was sealed"
    return None
