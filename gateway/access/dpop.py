"""DPoP (RFC 9449): a proof that the caller holds the key that its token is bound to."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from gateway.access.clients import CLIENT_AHEAD_SECONDS, JOSE, JTI_MAX, second_of, unverified
from gateway.access.jwks import is_fit
from gateway.addresses import split_address

PROOF_SECONDS_MAX = 60
PROOF_LENGTH_MAX = 4_000
_KEYS: dict[str, Any] = {"EC": ECKey, "OKP": OKPKey, "RSA": RSAKey}


class BadProof(Exception):
    """The proof does not hold; the text says why."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof that holds: the thumbprint (RFC 7638) of its key, and the digest under which it serves once."""

    thumbprint: str
    digest: bytes


def read_proof(proof: str, method: str, url: str, now: datetime, access_token: str | None = None) -> Proof:
    """Check a proof for one request, and that it belongs to `access_token` where one is used. Raises BadProof."""
    if len(proof) > PROOF_LENGTH_MAX:
        raise BadProof("The DPoP proof is too long.")
    try:
        header = unverified(proof, 0)
        jwk = header.get("jwk")
        if header.get("typ") != "dpop+jwt" or not isinstance(jwk, dict) or "d" in jwk:
            raise BadProof("The DPoP proof needs typ dpop+jwt and its public key as jwk.")
        if not is_fit(jwk):
            raise BadProof("The key of a DPoP proof is EC, OKP, or RSA of 2048 to 4096 bits with the exponent 65537.")
        key = _KEYS[str(jwk.get("kty"))].import_key(jwk)
        claims = jwt.decode(proof, key, registry=JOSE).claims
        proven_url = _plain(str(claims.get("htu", "")))
    except (JoseError, ValueError, TypeError, KeyError, RecursionError):
        raise BadProof("The DPoP proof's signature does not hold.") from None
    if claims.get("htm") != method or proven_url != url:
        raise BadProof(f"The DPoP proof is for another request than {method} {url}.")
    made, at = second_of(claims.get("iat")), int(now.timestamp())
    if made is None or not at - PROOF_SECONDS_MAX <= made <= at + CLIENT_AHEAD_SECONDS:
        raise BadProof(f"The DPoP proof was not made within the last {PROOF_SECONDS_MAX} seconds.")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti) <= JTI_MAX or not jti.isprintable():
        raise BadProof("The DPoP proof needs a jti.")
    if access_token is not None and claims.get("ath") != _hash(access_token):
        raise BadProof("The DPoP proof is for another access token.")
    thumbprint = str(key.thumbprint())
    return Proof(thumbprint, hashlib.sha256(f"dpop {thumbprint} {jti}".encode()).digest())


def only_proof(proofs: Sequence[str], method: str, url: str, now: datetime, access_token: str | None = None) -> Proof:
    """The one proof of a request, checked. Raises BadProof."""
    if len(proofs) != 1:
        raise BadProof("Send one DPoP proof.")
    return read_proof(proofs[0], method, url, now, access_token)


def _plain(url: str) -> str:
    """Without query and fragment (RFC 9449, section 4.3)."""
    parts = split_address(url)
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}{parts.path}"


def _hash(token: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()
