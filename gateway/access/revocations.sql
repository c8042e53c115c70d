-- name: oldest_running()^
-- The oldest transaction that may still revoke something: what those before it revoked can be read. And over which connection, to which server.
select pg_snapshot_xmin(pg_current_snapshot())::text as oldest,
       pg_backend_pid() || ' since ' || pg_postmaster_start_time() as connection;

-- name: revocations_from(xid, mark, now, most)
-- What was revoked in a transaction, after a mark, or in those that came after it, of tokens that have not ended by themselves.
select xid::text, mark, revoked_at, until
  from revocation
 where (xid, mark) > (:xid::text::xid8, :mark)
   and until > :now
 order by revocation.xid, mark
 limit :most;

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
