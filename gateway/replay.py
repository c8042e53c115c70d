"""Idempotency: what it means that two requests with the same key have the same content."""

import hashlib

import msgspec


def digest(kind: str, content: object) -> bytes:
    """SHA-256 over the kind of a request and its content, key included.

    `content` is made of structs, dataclasses, tuples and scalars; equal content has an equal digest.
    """
    return hashlib.sha256(kind.encode() + b"\0" + msgspec.json.encode(content)).digest()
