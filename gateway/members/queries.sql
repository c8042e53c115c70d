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

-- name: set_card_status(number, status)$
-- Block a card, or let it be used again; answers whose it is, null where nobody has it.
update card
   set status = :status
 where number = :number
returning member_id;

-- name: set_membership_status(partner, external_id, status)$
-- Suspend a member at the partner with this code, or let it in again; answers its id, null where the partner does not know it.
update membership m
   set status = :status
  from partner p
  join external_id x using (partner_id)
 where p.code = :partner
   and x.external_id = :external_id
   and m.bucket = x.bucket
   and m.membership_id = x.membership_id
returning m.member_id;
