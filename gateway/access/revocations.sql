-- name: oldest_running()$
-- The oldest transaction that may still revoke something: what those before it revoked can be read.
select pg_snapshot_xmin(pg_current_snapshot())::text;

-- name: revocations_since(since, now)
-- What was revoked in a transaction or in one that came after it, of tokens that have not ended by themselves.
select mark, revoked_at, until
  from revocation
 where xid >= :since::text::xid8
   and until > :now;

-- name: revocations_of(marks)
-- Which of a token's marks were revoked, and when.
select mark, revoked_at, until
  from revocation
 where mark = any(:marks::text[]);

-- name: still_names(issuer, subject, subject_id)$
-- Whether a subject of an outside issuer is somebody here; null where it is not, or not any more.
select true
  from outside_identity
 where issuer = :issuer
   and subject = :subject
   and subject_id = :subject_id;

-- name: revoke(mark, revoked_at, until)!
-- End tokens by one of their marks.
insert into revocation (mark, revoked_at, until)
values (:mark, :revoked_at, :until)
on conflict (mark) do update set revoked_at = greatest(revocation.revoked_at, excluded.revoked_at),
                                 until = greatest(revocation.until, excluded.until),
                                 xid = pg_current_xact_id();
