"""Merkle trees as RFC 6962, section 2.1, builds them: a leaf is hashed with 0x00 before it, a node with 0x01."""

import hashlib
from collections.abc import Sequence


def leaf_hash(content: bytes) -> bytes:
    """SHA-256 of a leaf."""
    return hashlib.sha256(b"\x00" + content).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over at least one leaf hash.

    Level by level: each is half as long as the one below, and what has no neighbour goes up as it is.
    """
    level = list(leaves)
    while len(level) > 1:
        above = [_node(left, right) for left, right in zip(level[::2], level[1::2], strict=False)]
        level = above + level[len(level) - len(level) % 2 :]
    return level[0]


def path(leaves: Sequence[bytes], index: int) -> list[tuple[str, bytes]]:
    """The siblings from a leaf up to the root, each with the side it stands on: left or right."""
    if len(leaves) == 1:
        return []
    k = _split(len(leaves))
    if index < k:
        return [*path(leaves[:k], index), ("right", root(leaves[k:]))]
    return [*path(leaves[k:], index - k), ("left", root(leaves[:k]))]
