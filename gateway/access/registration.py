"""Clients of the authorization server: partners' with secrets or keys of their own, and apps that keep no secret."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import orjson
from joserfc.errors import JoseError

from gateway.access.jwks import KEYS_MAX, read_keys
from gateway.access.scopes import PARTNER
from gateway.addresses import split_address
from gateway.database import Tx
from gateway.refusals import InputNotAccepted
from gateway.statements import load_queries
from gateway.texts import check_name

sql = load_queries(__file__, "registration.sql")

CONSOLE_CLIENT = "console"
APP_CLIENT = "member-app"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
CODE_GRANTS = ("authorization_code", "refresh_token")
SECRETS_MAX = 2
PURPOSE_MAX = 200
SECRET_PREFIX = "gws_"  # noqa: S105  # nosec B105 - says what kind of secret leaked, is none itself


@dataclass(frozen=True, slots=True)
class ForMembers:
    """What a partner's client needs to ask members for their consent: where they come back to, and for what it asks."""

    redirect_uris: tuple[str, ...] = ()
    purpose: str | None = None


@dataclass(frozen=True, slots=True)
class Registered:
    """What a partner's client is registered with. `jwks`, `jwks_uri`: its own keys, or where it publishes them; else it has
    secrets."""

    dpop_bound: bool = False
    for_members: ForMembers = ForMembers()
    jwks: str | None = None
    jwks_uri: str | None = None

    @property
    def is_keyed(self) -> bool:
        return self.jwks is not None or self.jwks_uri is not None

    def changed(self, dpop_bound: bool | None, redirect_uris: Sequence[str] | None, purpose: str | None) -> "Registered":
        """With what is said of these; of what is None, it stays as it is."""
        asks = ForMembers(
            self.for_members.redirect_uris if redirect_uris is None else tuple(redirect_uris),
            self.for_members.purpose if purpose is None else purpose,
        )
        return replace(self, dpop_bound=self.dpop_bound if dpop_bound is None else dpop_bound, for_members=asks)


async def registered(tx: Tx, code: str) -> Registered | None:
    """A partner's client, which nobody else changes until the transaction ends; None where it has none yet."""
    await tx.run(sql.lock_client, client_id=f"partner-{code}")
    known = await tx.one(sql.oauth_client, client_id=f"partner-{code}")
    if known is None:
        return None
    asks = ForMembers(tuple(known["redirect_uris"]), known["purpose"])
    return Registered(known["dpop_bound"], asks, known["jwks"], known["jwks_uri"])


async def change_client(tx: Tx, partner_id: UUID, code: str, to: Registered, now: datetime) -> str:
    """Change what a partner's client is registered with; its secrets stay. Answers its id. Raises InputNotAccepted."""
    return await _store_partner_client(tx, partner_id, code, to.jwks, to.dpop_bound, to.for_members, now, to.jwks_uri)


async def create_partner_client(
    tx: Tx, partner_id: UUID, code: str, now: datetime, dpop_bound: bool = False, keep: int = SECRETS_MAX,
    for_members: ForMembers = ForMembers(),
) -> tuple[str, str]:  # fmt: skip
    """Register a partner's client with a new secret; answers (client id, secret). Only the hash is kept.

    The `keep` newest secrets serve, this one included; older ones end. `dpop_bound`: its tokens are bound to a key.
    """
    secret = SECRET_PREFIX + secrets.token_urlsafe(32)
    client_id = await _store_partner_client(tx, partner_id, code, None, dpop_bound, for_members, now)
    await tx.run(sql.store_secret, secret_hash=secret_hash(secret), client_id=client_id, created_at=now)
    await tx.run(sql.end_secrets, client_id=client_id, made=secret_hash(secret), others=keep - 1, ended_at=now)
    return client_id, secret


async def create_keyed_client(
    tx: Tx, partner_id: UUID, code: str, jwks: str, dpop_bound: bool, now: datetime, for_members: ForMembers = ForMembers()
) -> str:
    """Register a partner's client with public keys of its own (private_key_jwt); its secrets end. Answers its id.

    Raises InputNotAccepted unless `jwks` is a set of one or more public keys.
    """
    try:
        given = orjson.loads(jwks)
        keys = read_keys(given).keys
        unfit = len(given["keys"]) - len(keys)
    except (JoseError, ValueError, KeyError, TypeError):
        raise InputNotAccepted('The keys are not a JSON Web Key Set: {"keys": [...]}.', "jwks") from None
    if unfit:
        kinds = "EC, OKP, or RSA of 2048 to 4096 bits with e=65537"
        told = f"{unfit} of the keys cannot be used: give at most {KEYS_MAX} public keys, {kinds}."
        raise InputNotAccepted(told, "jwks")
    if not keys:
        raise InputNotAccepted("The key set must hold at least one key.", "jwks")
    return await _store_keyed(tx, partner_id, code, jwks, None, dpop_bound, for_members, now)


async def create_published_client(
    tx: Tx, partner_id: UUID, code: str, url: str, dpop_bound: bool, now: datetime, for_members: ForMembers = ForMembers()
) -> str:
    """Register a partner's client whose public keys are fetched from an address of its own; its secrets end."""
    return await _store_keyed(tx, partner_id, code, None, url, dpop_bound, for_members, now)


async def _store_keyed(
    tx: Tx, partner_id: UUID, code: str, jwks: str | None, jwks_uri: str | None, dpop_bound: bool, for_members: ForMembers,
    now: datetime,
) -> str:  # fmt: skip
    client_id = await _store_partner_client(tx, partner_id, code, jwks, dpop_bound, for_members, now, jwks_uri)
    await tx.run(sql.end_secrets, client_id=client_id, made=None, others=0, ended_at=now)
    return client_id


async def _store_partner_client(
    tx: Tx, partner_id: UUID, code: str, jwks: str | None, dpop_bound: bool, for_members: ForMembers, now: datetime,
    jwks_uri: str | None = None,
) -> str:  # fmt: skip
    if for_members.purpose is not None:
        check_name(for_members.purpose, "purpose", most=PURPOSE_MAX)
    client_id = f"partner-{code}"
    await tx.run(
        sql.store_oauth_client,
        client_id=client_id,
        name=code,
        partner_id=partner_id,
        jwks=jwks,
        jwks_uri=jwks_uri,
        dpop_bound=dpop_bound,
        redirect_uris=list(for_members.redirect_uris),
        grants=["client_credentials", EXCHANGE, *(CODE_GRANTS if for_members.redirect_uris else ())],
        scopes=sorted(PARTNER),
        purpose=for_members.purpose,
        created_at=now,
    )
    return client_id


async def register_public_client(
    tx: Tx, client_id: str, name: str, redirect_uris: list[str], scopes: list[str], refreshes: bool, now: datetime
) -> None:
    """Register a client that keeps no secret: the console, a mobile app. `refreshes`: it gets refresh tokens. Raises
    InputNotAccepted."""
    check_name(name, "name")
    await tx.run(
        sql.store_oauth_client,
        client_id=client_id,
        name=name,
        partner_id=None,
        jwks=None,
        jwks_uri=None,
        dpop_bound=False,
        redirect_uris=redirect_uris,
        grants=[*CODE_GRANTS] if refreshes else ["authorization_code"],
        scopes=scopes,
        purpose=None,
        created_at=now,
    )


def is_redirect_uri(uri: str) -> bool:
    """Whether a code may be sent there: over HTTPS, to this machine, or to an app by a scheme of its own, which has a dot
    (RFC 8252, section 7.1); without a name before the host, a fragment, or a port that is none."""
    try:
        parts = split_address(uri)
        misleads = parts.port == 0 or parts.username is not None or "#" in uri
    except ValueError:
        return False
    if misleads:
        return False
    if parts.scheme == "http":
        return parts.hostname in ("127.0.0.1", "localhost", "::1")
    return bool(parts.netloc) if parts.scheme == "https" else "." in parts.scheme


def secret_hash(secret: str) -> bytes:
    """SHA-256: enough for secrets of 256 random bits, which cannot be guessed from their hash."""
    return hashlib.sha256(secret.encode()).digest()
