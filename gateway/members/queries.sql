-- name: memberships_by_external_id(partners, external_ids)
-- Memberships of partners by their own ids.
select x.external_id as ref, m.membership_id, m.member_id, m.partner_id, m.external_id, m.status, m.since,
       null::text as card_status
  from unnest(:partners::uuid[], :external_ids::text[]) i (partner_id, external_id)
  join external_id x on x.partner_id = i.partner_id and x.external_id = i.external_id
  join membership m on m.bucket = x.bucket and m.membership_id = x.membership_id;

-- name: memberships_by_card(partners, cards)
-- Memberships of partners by the coalition's cards.
select c.number as ref, m.membership_id, m.member_id, m.partner_id, m.external_id, m.status, m.since,
       c.status as card_status
  from unnest(:partners::uuid[], :cards::text[]) i (partner_id, number)
  join card c on c.number = i.number
  join membership m on m.bucket = c.bucket and m.member_id = c.member_id and m.partner_id = i.partner_id;

-- name: memberships_by_id(partners, buckets, memberships)
-- Memberships of partners by their ids.
select m.membership_id::text as ref, m.membership_id, m.member_id, m.partner_id, m.external_id, m.status, m.since,
       null::text as card_status
  from unnest(:partners::uuid[], :buckets::smallint[], :memberships::uuid[]) i (partner_id, bucket, membership_id)
  join membership m on m.bucket = i.bucket and m.membership_id = i.membership_id and m.partner_id = i.partner_id;

-- name: memberships_of_partner(partner, after, most)
-- A page of a partner's memberships in the order of their ids.
select membership_id, member_id, partner_id, external_id, status, since
  from membership
 where partner_id = :partner
   and membership_id > :after
 order by membership_id
 limit :most;

-- name: memberships_of_member(bucket, member)
-- Everything one member has joined.
select membership_id, member_id, partner_id, external_id, status, since
  from membership
 where bucket = :bucket
   and member_id = :member
 order by since, membership_id;

-- name: membership_by_id(bucket, membership)^
-- One membership.
select membership_id, member_id, partner_id, external_id, status, since
  from membership
 where bucket = :bucket
   and membership_id = :membership;

-- name: membership_at(bucket, member, partner)^
-- A member's membership at one partner.
select membership_id, member_id, partner_id, external_id, status, since
  from membership
 where bucket = :bucket
   and member_id = :member
   and partner_id = :partner;

-- name: member_by_id(bucket, member)^
-- One member.
select member_id, since
  from member
 where bucket = :bucket
   and member_id = :member;

-- name: cards_of_member(bucket, member)
-- A member's cards.
select number, status, since
  from card
 where bucket = :bucket
   and member_id = :member
 order by since, number;

-- name: cards_by_number(numbers)
-- Whose cards these are.
select number, bucket, member_id, status
  from card
 where number = any(:numbers::text[]);

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
