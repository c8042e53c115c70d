-- name: claim_external_ids(partner, external_ids, buckets, memberships)
-- Take external ids that nobody has yet; answers those that were taken.
insert into external_id (partner_id, external_id, bucket, membership_id)
select :partner, i.external_id, i.bucket, i.membership_id
  from unnest(:external_ids::text[], :buckets::smallint[], :memberships::uuid[]) i (external_id, bucket, membership_id)
 order by i.external_id
on conflict do nothing
returning external_id;

-- name: claim_cards(numbers, buckets, members, since)
-- Take card numbers that nobody has yet; answers those that were taken.
insert into card (number, bucket, member_id, since)
select i.number, i.bucket, i.member_id, :since
  from unnest(:numbers::text[], :buckets::smallint[], :members::uuid[]) i (number, bucket, member_id)
 order by i.number
on conflict do nothing
returning number;

-- name: store_members(buckets, members, since)!
-- Create members.
insert into member (bucket, member_id, since)
select i.bucket, i.member_id, :since
  from unnest(:buckets::smallint[], :members::uuid[]) i (bucket, member_id);

-- name: store_memberships(buckets, memberships, members, partner, external_ids, since)
-- Create memberships; answers those that were created, which leaves out members who have joined already.
insert into membership (bucket, membership_id, member_id, partner_id, external_id, since)
select i.bucket, i.membership_id, i.member_id, :partner, i.external_id, :since
  from unnest(:buckets::smallint[], :memberships::uuid[], :members::uuid[], :external_ids::text[])
       i (bucket, membership_id, member_id, external_id)
 order by i.bucket, i.member_id
on conflict (bucket, member_id, partner_id) do nothing
returning membership_id;
