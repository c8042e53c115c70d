-- name: outside_identity(issuer, subject, kind)$
-- Who a subject of an outside issuer is here.
select subject_id
  from outside_identity
 where issuer = :issuer
   and subject = :subject
   and kind = :kind;

-- name: link_identity(issuer, subject, kind, subject_id, at)!
-- Say who a subject of an outside issuer is here.
insert into outside_identity (issuer, subject, kind, subject_id, linked_at)
values (:issuer, :subject, :kind, :subject_id, :at)
on conflict (issuer, subject) do update
  set kind = excluded.kind, subject_id = excluded.subject_id, linked_at = excluded.linked_at;

-- name: unlink_identity(issuer, subject)!
-- A subject of an outside issuer is nobody here any more.
delete from outside_identity
 where issuer = :issuer
   and subject = :subject;
