"""What the authorization server knows of a request before Authlib decides, and what is kept of its decision."""

import hashlib
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749.errors import InvalidRequestError
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from gateway.access.clients import ASSERTION_TYPE, claimed_client_id, key_id_of, read_assertion
from gateway.access.consents import Consent, consent_by_id, live_consent
from gateway.access.dpop import PROOF_SECONDS_MAX, BadProof, Proof
from gateway.access.jwks import Fetcher, KeysAway, RemoteKeys, read_keys
from gateway.access.registration import EXCHANGE, secret_hash
from gateway.access.registration import sql as registration_sql
from gateway.access.revocations import marks_of, revoke, was_revoked
from gateway.access.server import Desk
from gateway.access.tokens import TokenRefused, Tokens
from gateway.clock import Clock
from gateway.database import Database, Row, Tx
from gateway.statements import load_queries
from gateway.turns import OneAtATime

sql = load_queries(__file__, "clerk.sql")

CLIENT_REFUSED = "The client could not be authenticated."
CREDENTIALS = {"client_secret", "client_assertion", "client_assertion_type"}


class Clerk:
    """Loads what a request names: its client, its code, its token, its consent; and writes what was decided."""

    def __init__(self, tokens: Tokens, database: Database, clock: Clock, fetcher: Fetcher) -> None:
        self._tokens, self._database, self._clock, self._fetcher = tokens, database, clock, fetcher
        self._remote: dict[str, RemoteKeys] = {}
        self._one_at_a_time = OneAtATime()

    def turn(self, parameters: dict[str, str]) -> AbstractAsyncContextManager[None]:
        """A turn at what a request names and its transaction locks: who waits for one token waits here, without a connection.

        Raises Busy.
        """
        named = _named_code(parameters) or _named_token(parameters)
        return self._one_at_a_time(secret_hash(named)) if named is not None else nullcontext()

    def deciding(self, parameters: dict[str, str]) -> AbstractAsyncContextManager[Tx]:
        """Where a request is looked up, decided, and kept: a transaction. Client credentials end nothing and keep at most that an
        assertion and a proof have served, each in a statement of its own, so that two of three round trips are spared.

        Raises DatabaseAway, Stuck.
        """
        alone = parameters.get("grant_type") == "client_credentials"
        return self._database.reading() if alone else self._database.transaction()

    async def fetched_keys(self, parameters: dict[str, str]) -> tuple[str, KeySet] | None:
        """The address at which a client publishes its keys, and these; fetched while no transaction waits."""
        assertion = parameters.get("client_assertion", "")
        client_id = claimed_client_id(assertion) if assertion else ""
        if not client_id or not client_id.isprintable():
            return None
        async with self._database.reading() as tx:
            url: str | None = await tx.value(sql.jwks_uri_of, client_id=client_id)
        if url is None:
            return None
        remote = self._remote.setdefault(url, RemoteKeys(self._fetcher, url))
        try:
            return url, await remote.keys(key_id_of(assertion))
        except KeysAway:
            return None

    async def lay_out(
        self, parameters: dict[str, str], basic: tuple[str, str] | None, fetched: tuple[str, KeySet] | None, tx: Tx
    ) -> Desk:
        """A desk with all that the request names. Raises OAuth2Error."""
        check_resource(parameters, self._tokens)
        desk = await self._client(parameters, basic, fetched, tx)
        code, token = _named_code(parameters), _named_token(parameters)
        if code is not None:
            desk.code = await tx.one(sql.authorization_code, code_hash=secret_hash(code))
        if token is not None:
            await tx.run(sql.lock_family, token_hash=secret_hash(token))
            desk.refresh = await tx.one(sql.refresh_token, token_hash=secret_hash(token))
            desk.claims = None if desk.refresh is not None else self._claims(token)
        if parameters.get("grant_type") == EXCHANGE and "subject_token" in parameters:
            desk.subject = self._claims(parameters["subject_token"])
            if desk.subject is not None and await was_revoked(tx, marks_of(desk.subject), desk.subject["iat"]):
                desk.subject = None
        desk.consent = await self._consent(desk, tx)
        return desk

    async def _client(
        self, parameters: dict[str, str], basic: tuple[str, str] | None, fetched: tuple[str, KeySet] | None, tx: Tx
    ) -> Desk:
        """A desk with the client and its assertion, where it sent one."""
        now, assertion = self._clock.now(), parameters.get("client_assertion")
        client_id = basic[0] if basic else parameters.get("client_id", "")
        if assertion is not None:
            claimed = claimed_client_id(assertion)
            if parameters.get("client_assertion_type") != ASSERTION_TYPE or client_id not in ("", claimed):
                raise InvalidRequestError("The client assertion is not one of this client.")
            client_id = claimed
        desk = Desk(now, await tx.one(registration_sql.oauth_client, client_id=client_id) if client_id.isprintable() else None)
        if desk.client is not None and desk.client["partner_status"] == "suspended":
            desk.client = None
        if desk.client is not None and not _is_confidential(desk.client) and (basic or CREDENTIALS & parameters.keys()):
            # Authlib would take no notice of them, and the client for one that has shown who it is.
            raise OAuth2Error(error="invalid_client", description=CLIENT_REFUSED, status_code=401)
        if assertion is not None and desk.client is not None:
            registered = desk.client["jwks"]
            keys = _registered(registered) if registered is not None else _published(desk.client, fetched)
            desk.assertion = read_assertion(assertion, keys, self._tokens.issuer, now) if keys is not None else None
        return desk

    async def _consent(self, desk: Desk, tx: Tx) -> Consent | None:
        """The living consent under which a partner asks: that of its code or refresh token, or of the member it names."""
        if desk.client is None or desk.client["partner_id"] is None:
            return None
        if desk.subject is not None and desk.subject["kind"] == "member":
            scopes = desk.subject["scope"].split()
            return await live_consent(tx, UUID(desk.subject["sub"]), desk.client["partner_id"], scopes)
        row = desk.code or desk.refresh
        if row is None or row["consent_id"] is None:
            return None
        found = await consent_by_id(tx, row["consent_id"])
        if found is None or found.withdrawn_at is not None:
            return None
        own = found.member_id == row["member_id"] and found.partner_id == desk.client["partner_id"]
        return found if own else None

    def _claims(self, token: str) -> dict[str, Any] | None:
        try:
            claims = self._tokens.read_claims(token)
        except TokenRefused:
            return None
        return None if self._tokens.revocations.hit(marks_of(claims), claims["iat"]) else claims

    async def write(self, desk: Desk, tx: Tx) -> None:
        """Keep what was decided, also when the answer is a no."""
        if desk.spent_code and desk.code is not None:
            await tx.run(sql.use_authorization_code, code_hash=desk.code["code_hash"], used_at=desk.now)
        if desk.new_family is not None:
            await tx.run(sql.store_family, **desk.new_family)
        if desk.spent_refresh and desk.refresh is not None:
            await tx.run(sql.use_refresh_token, token_hash=desk.refresh["token_hash"], used_at=desk.now)
        if desk.new_refresh is not None:
            await tx.run(sql.store_refresh_token, **desk.new_refresh)
        if desk.revoked is not None:
            await revoke(tx, f"jti:{desk.revoked['jti']}", desk.now, desk.revoked["exp"])
        if desk.ended_family is not None:
            await tx.run(sql.end_family, family_id=desk.ended_family, ended_at=desk.now)
            await revoke(tx, f"sid:{desk.ended_family}", desk.now)


def _named_code(parameters: dict[str, str]) -> str | None:
    """What a request names counts for the grant it asks for, and for no other."""
    return parameters.get("code") if parameters.get("grant_type") == "authorization_code" else None


def _named_token(parameters: dict[str, str]) -> str | None:
    """A refresh token, or what revocation and introspection are about, which ask for no grant."""
    asked = parameters.get("grant_type")
    return parameters.get("refresh_token") if asked == "refresh_token" else None if asked else parameters.get("token")


def check_resource(parameters: dict[str, str], tokens: Tokens) -> None:
    """There is one resource to ask tokens for, the API (RFC 8707). Raises OAuth2Error."""
    for name in ("resource", "audience"):
        if parameters.get(name, tokens.audience) != tokens.audience:
            raise OAuth2Error(error="invalid_target", description=f"The resource is {tokens.audience}.", status_code=400)


def _registered(jwks: str) -> KeySet | None:
    """The keys that a client was registered with; None where none of them is good any more."""
    try:
        return read_keys(orjson.loads(jwks))
    except (JoseError, ValueError, KeyError, TypeError):
        return None


def _published(client: Row, fetched: tuple[str, KeySet] | None) -> KeySet | None:
    """What was fetched, if it is where the client publishes its keys by now."""
    return fetched[1] if fetched is not None and fetched[0] == client["jwks_uri"] else None


def _is_confidential(client: Row) -> bool:
    """Whether a client can show who it is: it has secrets, or keys."""
    return bool(client["secrets"] or client["jwks"] or client["jwks_uri"])


async def use_proof(tx: Tx, proof: Proof, now: datetime) -> None:
    """A proof serves once. Raises BadProof the second time."""
    if not await tx.value(sql.use_once, digest=proof.digest, until=now + timedelta(seconds=2 * PROOF_SECONDS_MAX)):
        raise BadProof("The DPoP proof was used before.")


async def once(tx: Tx, said: bytes, until: datetime) -> None:
    """Raises OAuth2Error the second time."""
    if not await tx.value(sql.use_once, digest=hashlib.sha256(said).digest(), until=until):
        raise OAuth2Error(error="invalid_client", description=CLIENT_REFUSED, status_code=401)
