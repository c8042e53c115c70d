"""Merkle trees as RFC 6962, section 2.1, builds them: a leaf is hashed with 0x00 before it, a node with 0x01."""

import hashlib

HASH_BYTES = 32


def leaf_hash(content: bytes) -> bytes:
    """SHA-256 of a leaf."""
    return hashlib.sha256(b"\x00" + content).digest()


class Tree:
    """The tree over at least one leaf hash; `leaves` are the hashes one after the other.

    Level by level: each is half as long as the one below, and what has no neighbour goes up as it is.
    A level is one run of bytes, a third of the memory of as many hashes.
    """

    __slots__ = ("_levels",)

    def __init__(self, leaves: bytes) -> None:
        self._levels = [leaves]
        while len(level := self._levels[-1]) > HASH_BYTES:
            pairs = len(level) // (2 * HASH_BYTES) * (2 * HASH_BYTES)
            above = [hashlib.sha256(b"\x01" + level[n : n + 2 * HASH_BYTES]).digest() for n in range(0, pairs, 2 * HASH_BYTES)]
            self._levels.append(b"".join([*above, level[pairs:]]))

    @property
    def root(self) -> bytes:
        return self._levels[-1]

    def path(self, index: int) -> list[tuple[str, bytes]]:
        """The siblings from a leaf up to the root, each with the side it stands on: left or right."""
        found: list[tuple[str, bytes]] = []
        for level in self._levels[:-1]:
            sibling = index ^ 1
            if sibling * HASH_BYTES < len(level):
                hashed = level[sibling * HASH_BYTES : (sibling + 1) * HASH_BYTES]
                found.append(("left" if sibling < index else "right", hashed))
            index //= 2
        return found
