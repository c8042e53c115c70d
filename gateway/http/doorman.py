"""Who is at the door: the caller behind a request's or a socket's credentials."""

from collections.abc import Sequence
from dataclasses import replace

from gateway.access.caller import PUBLIC, Caller
from gateway.access.clerk import use_proof
from gateway.access.dpop import BadProof, only_proof
from gateway.access.issuers import RECHECK_SECONDS, OutsideIssuers
from gateway.access.tokens import TokenRefused, Tokens
from gateway.context import Doors
from gateway.database import DatabaseAway, Stuck
from gateway.http.refusing import RequestRefused, refusing_what_is_away
from gateway.parties import PARTY

_SCHEMES = {"bearer": "Bearer", "dpop": "DPoP"}


class Doorman:
    """Tells callers by a bearer token, or by one that is bound to a key with the proof of it (RFC 9449, section 7)."""

    def __init__(self, tokens: Tokens, issuers: OutsideIssuers, doors: Doors, own_tokens: bool = True) -> None:
        self._tokens, self._issuers, self._doors, self._own_tokens = tokens, issuers, doors, own_tokens

    async def identify(self, authorizations: Sequence[str], proofs: Sequence[str], method: str) -> Caller:
        """The caller by the Authorization and DPoP headers that were sent; without any, the public. Raises RequestRefused."""
        if not authorizations:
            return PUBLIC
        scheme, _, token = authorizations[0].partition(" ")
        scheme, token = scheme.lower(), token.strip()
        if len(authorizations) > 1 or scheme not in _SCHEMES or not token:
            raise _unknown("Send one header: Authorization: Bearer <token>.", "Bearer")
        try:
            with refusing_what_is_away():
                caller = await self._verify(token)
            if (caller.key_thumbprint is None) != (scheme == "bearer"):
                bound = caller.key_thumbprint is not None
                raise TokenRefused("The token is bound: send it as DPoP, with a proof." if bound else "The token is not bound.")
        except TokenRefused as error:
            raise _unknown(str(error), f'{_SCHEMES[scheme]} error="invalid_token"') from None
        PARTY.set(caller.party)  # for whom the task at hand works from now on
        if caller.key_thumbprint is not None:
            await self._check_proof(proofs, method, caller.key_thumbprint, token)
        return caller

    async def _verify(self, token: str) -> Caller:
        """Raises TokenRefused, DatabaseAway, Stuck."""
        if self._own_tokens and self._tokens.remembers(token):
            return self._tokens.verify(token)
        if self._issuers.issuer_of(token) is not None:
            return await self._issuers.verify(token)
        if not self._own_tokens:
            raise TokenRefused("The token is of no trusted issuer.")
        return self._tokens.verify(token)

    async def still_knows(self, authorization: str | None, caller: Caller) -> bool:
        """Whether who was let in may still be here, as who it was: its token has neither expired nor been revoked since, nor
        says by now that it is somebody else or may do something else; and the partner that calls or acts is not suspended."""
        if authorization is None:
            return True
        try:
            fresh = await self._verify(authorization.partition(" ")[2].strip())
        except TokenRefused:
            return False
        except (DatabaseAway, Stuck):  # what was known last holds
            return not self._tokens.revocations.hit(caller.marks, caller.issued_at - RECHECK_SECONDS)
        if fresh is not caller and replace(fresh, issued_at=caller.issued_at) != caller:
            return False
        partner_id = caller.acting_partner_id or caller.partner_id
        if partner_id is None:
            return True
        try:
            partner = (await self._doors.catalogue.current()).partners.get(partner_id)
        except (DatabaseAway, Stuck):
            return True
        return partner is not None and partner.status == "active"

    async def _check_proof(self, proofs: Sequence[str], method: str, thumbprint: str, token: str) -> None:
        now = self._doors.clock.now()
        try:
            proof = only_proof(proofs, method, self._tokens.audience, now, token)
            if proof.thumbprint != thumbprint:
                raise BadProof("The DPoP proof is by another key than the token's.")
            with refusing_what_is_away():
                async with self._doors.database.reading() as tx:
                    await use_proof(tx, proof, now)
        except BadProof as bad:
            raise _unknown(str(bad), 'DPoP error="invalid_dpop_proof"') from None


def _unknown(message: str, challenge: str) -> RequestRefused:
    return RequestRefused(401, "UNAUTHENTICATED", message, {"WWW-Authenticate": challenge})
