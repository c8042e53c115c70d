"""Merkle trees as RFC 6962, section 2.1, builds them: a leaf is hashed with 0x00 before it, a node with 0x01."""

import hashlib
from collections.abc import Sequence


def leaf_hash(content: bytes) -> bytes:
    """SHA-256 of a leaf."""
    return hashlib.sha256(b"\x00" + content).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """The tree over at least one leaf hash.

    Level by level: each is half as long as the one below, and what has no neighbour goes up as it is.
    """

    __slots__ = ("_levels",)

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._levels = [list(leaves)]
        while len(level := self._levels[-1]) > 1:
            above = [_node(left, right) for left, right in zip(level[::2], level[1::2], strict=False)]
            self._levels.append(above + level[len(level) - len(level) % 2 :])

    @property
    def root(self) -> bytes:
        return self._levels[-1][0]

    def path(self, index: int) -> list[tuple[str, bytes]]:
        """The siblings from a leaf up to the root, each with the side it stands on: left or right."""
        found: list[tuple[str, bytes]] = []
        for level in self._levels[:-1]:
            sibling = index ^ 1
            if sibling < len(level):
                found.append(("left" if sibling < index else "right", level[sibling]))
            index //= 2
        return found
