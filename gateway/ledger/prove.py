"""Proofs that a transaction is in the sealed ledger.

`docs/verify_proof.py` checks one with nothing but Python's standard library and the gateway's public key.
"""

from collections import OrderedDict
from dataclasses import dataclass
from uuid import UUID

from gateway.database import Database
from gateway.ids import bucket_of
from gateway.ledger.merkle import Tree
from gateway.ledger.post import sql
from gateway.ledger.seal import contents_of, read_block
from gateway.parties import Shares
from gateway.turns import OneAtATime

# Of the blocks that were asked for last; one takes a third of a megabyte.
TREES_KEPT = 64


@dataclass(frozen=True, slots=True)
class Proof:
    """That `leaf`, a transaction's canonical JSON, is in a block: hash it, climb `path`, compare with the header's root."""

    leaf: str
    path: tuple[tuple[str, str], ...]
    header: str
    key_id: str
    signature: str


class Prover:
    """Gives proofs. A block never changes, so its tree is built once for all of its transactions."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._trees: OrderedDict[int, Tree] = OrderedDict()
        self._turns, self._building = Shares(1), OneAtATime()

    async def prove(self, transaction_id: UUID) -> Proof | None:
        """The proof of a transaction; None while it is not sealed yet. Raises DatabaseAway, Stuck, Busy."""
        async with self._database.reading() as tx:
            row = await tx.one(sql.sealed_block, bucket=bucket_of(transaction_id), transaction=transaction_id)
            if row is None:
                return None
            content = (await contents_of(tx, [transaction_id]))[transaction_id]
        block, tree = read_block(row), await self._tree(row["height"])
        path = tuple((side, sibling.hex()) for side, sibling in tree.path(row["ordinal"]))
        return Proof(content.decode(), path, block.header.decode(), block.key_id, block.signature.hex())

    async def _tree(self, height: int) -> Tree:
        tree = self._trees.get(height)
        if tree is not None:
            self._trees.move_to_end(height)
            return tree
        # One is built after the other, in milliseconds in which nobody else has a turn; of one party one waits for its own.
        async with self._turns.own(), self._building():
            tree = self._trees.get(height)
            if tree is None:
                async with self._database.reading() as tx:
                    leaves: bytes = await tx.value(sql.packed_leaves_of_block, height=height)
                tree = self._trees[height] = Tree(leaves)
                if len(self._trees) > TREES_KEPT:
                    self._trees.popitem(last=False)
            return tree
