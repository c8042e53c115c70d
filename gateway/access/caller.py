"""Who is calling."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Outside:
    """Who somebody is to a trusted issuer of others."""

    issuer: str
    subject: str


@dataclass(frozen=True, slots=True)
class Caller:
    """What a verified token says. `kind` is partner, member, operator or public; `subject_id` is the partner, the member or the
    operator's account, and owns idempotency keys. `key_thumbprint`: of the key that the token is bound to. `strong_since`: when
    the person showed two factors, in seconds of the epoch. `acting_partner_id`: the partner that acts for the member.
    `outside`: a trusted issuer of others says so, whose clients' ids begin with its own. `issued_at`: when the token was, or
    who it names was looked up here, in seconds of the epoch. `marks`: by what it can be revoked."""

    kind: str
    subject_id: UUID | None
    client_id: str
    scopes: frozenset[str]
    key_thumbprint: str | None = None
    token_id: str | None = None
    strong_since: int | None = None
    acting_partner_id: UUID | None = None
    outside: Outside | None = None
    issued_at: int = 0
    marks: tuple[str, ...] = ()

    @property
    def partner_id(self) -> UUID | None:
        return self.subject_id if self.kind == "partner" else None

    @property
    def member_id(self) -> UUID | None:
        return self.subject_id if self.kind == "member" else None

    @property
    def is_member_itself(self) -> bool:
        """A member's own app, and no partner that acts for the member."""
        return self.kind == "member" and self.acting_partner_id is None

    @property
    def party(self) -> UUID | None:
        """Who asks: the partner that acts for a member, however many it acts for; else the subject itself."""
        return self.acting_partner_id or self.subject_id


PUBLIC = Caller(kind="public", subject_id=None, client_id="", scopes=frozenset())
