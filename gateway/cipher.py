"""Encryption of what must not be read in the database: AES-256-GCM, under keys that are themselves wrapped.

A wrapped key is: the first 8 bytes of the SHA-256 of the key that wraps it, a nonce of 12 bytes, ciphertext and tag. What is
sealed is: a nonce of 12 bytes, ciphertext and tag (NIST SP 800-38D). `about` is authenticated with it, so that what was
sealed for one row opens in no other.
"""

import hashlib
import hmac
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
_ID_BYTES, _NONCE_BYTES = 8, 12


class CannotOpen(ValueError):
    """A ciphertext that none of the keys opens: another key is needed, or it was changed."""


def new_key() -> bytes:
    """256 random bits."""
    return os.urandom(KEY_BYTES)


def seal(key: bytes, plain: bytes, about: bytes) -> bytes:
    """Encrypt under a fresh random nonce."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, about)


def unseal(key: bytes, sealed: bytes, about: bytes) -> bytes:
    """Decrypt. Raises CannotOpen."""
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], about)
    except (InvalidTag, ValueError):
        raise CannotOpen("What is encrypted does not open with its key.") from None


def blind(key: bytes, text: str) -> bytes:
    """HMAC-SHA-256: a text can be looked for by it, and not be read out of it."""
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


class Wrapping:
    """The configured keys: the first one wraps, all of them unwrap."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._first = keys[0]
        self._by_id = {_id_of(key): key for key in keys}

    def wrap(self, key: bytes, about: bytes) -> bytes:
        """A key, encrypted under the first of the configured ones."""
        return _id_of(self._first) + seal(self._first, key, about)

    def unwrap(self, wrapped: bytes, about: bytes) -> bytes:
        """Raises CannotOpen."""
        key = self._by_id.get(wrapped[:_ID_BYTES])
        if key is None:
            raise CannotOpen(
                f"The data is encrypted under the key {wrapped[:_ID_BYTES].hex()}, which GATEWAY_ENCRYPTION_KEY does not hold; "
                f"it holds {', '.join(id.hex() for id in self._by_id)}."
            )
        return unseal(key, wrapped[_ID_BYTES:], about)


def _id_of(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()[:_ID_BYTES]
