-- name: outside_identity(issuer, subject, kind)^
-- Who a subject of an outside issuer is here, and an operator's roles; nobody if the operator is disabled.
select o.subject_id, a.roles
  from outside_identity o
  left join account a on a.account_id = o.subject_id and o.kind = 'operator'
 where o.issuer = :issuer
   and o.subject = :subject
   and o.kind = :kind
   and a.disabled_at is null;

-- name: identity_before(issuer, subject)^
-- Who a subject of an outside issuer was until now.
select kind, subject_id
  from outside_identity
 where issuer = :issuer
   and subject = :subject
   for update;

-- name: link_identity(issuer, subject, kind, subject_id, at)!
-- Say who a subject of an outside issuer is here.
insert into outside_identity (issuer, subject, kind, subject_id, linked_at)
values (:issuer, :subject, :kind, :subject_id, :at)
on conflict (issuer, subject) do update
  set kind = excluded.kind, subject_id = excluded.subject_id, linked_at = excluded.linked_at;

-- name: unlink_identity(issuer, subject)^
-- A subject of an outside issuer is nobody here any more; answers who it was.
delete from outside_identity
 where issuer = :issuer
   and subject = :subject
returning kind, subject_id;
