-- name: store_person(bucket, member, wrapped_key, sealed, now)!
-- Keep what is known of a member, in place of what was kept before.
insert into person (bucket, member_id, wrapped_key, sealed, updated_at)
values (:bucket, :member, :wrapped_key, :sealed, :now)
on conflict (bucket, member_id) do update
  set wrapped_key = excluded.wrapped_key, sealed = excluded.sealed, updated_at = excluded.updated_at;

-- name: store_lookups(fields, digests, bucket, member)!
-- By what a member is looked for.
insert into person_lookup (field, digest, bucket, member_id)
select i.field, i.digest, :bucket, :member
  from unnest(:fields::text[], :digests::bytea[]) i (field, digest);

-- name: forget_lookups(bucket, member)!
-- A member is not looked for by these any more.
delete from person_lookup
 where bucket = :bucket
   and member_id = :member;

-- name: forget_person(bucket, member)!
-- Delete what is known of a member, with its key.
delete from person
 where bucket = :bucket
   and member_id = :member;

-- name: person(bucket, member)^
-- What is known of a member.
select wrapped_key, sealed
  from person
 where bucket = :bucket
   and member_id = :member;

-- name: members_found_by(field, digest)
-- Members by a blind index.
select member_id
  from person_lookup
 where field = :field
   and digest = :digest
 order by member_id
 limit 50;

-- name: people_after(bucket, member, most)
-- People in the order of their keys.
select bucket, member_id, wrapped_key
  from person
 where (bucket, member_id) > (:bucket, :member)
 order by bucket, member_id
 limit :most
   for update;

-- name: rewrap_person(bucket, member, wrapped_key)!
-- The same key, wrapped by another one.
update person
   set wrapped_key = :wrapped_key
 where bucket = :bucket
   and member_id = :member;
