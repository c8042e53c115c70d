-- name: store_consent(bucket, consent_id, member, partner, purpose, scopes, data_classes, notice_version, evidence, now)!
-- Keep a consent.
insert into consent (bucket, consent_id, member_id, partner_id, purpose, scopes, data_classes, notice_version, evidence, granted_at)
values (:bucket, :consent_id, :member, :partner, :purpose, :scopes, :data_classes, :notice_version, :evidence::text::jsonb, :now);

-- name: decide_alone(bucket, member)!
-- Until the transaction ends nobody else gives a consent in this member's name.
select
  from member
 where bucket = :bucket
   and member_id = :member
   for no key update;

-- name: consent_by_id(bucket, consent_id)^
-- One consent.
select consent_id, member_id, partner_id, purpose, scopes, data_classes, notice_version, granted_at, withdrawn_at
  from consent
 where bucket = :bucket
   and consent_id = :consent_id;

-- name: live_consent(bucket, member, partner, scopes)^
-- The latest consent of a member for a partner that was not withdrawn; before others one that covers these scopes.
select consent_id, member_id, partner_id, purpose, scopes, data_classes, notice_version, granted_at, withdrawn_at
  from consent
 where bucket = :bucket
   and member_id = :member
   and partner_id = :partner
   and withdrawn_at is null
 order by scopes @> :scopes::text[] desc, granted_at desc, consent_id desc
 limit 1;

-- name: standing_consents(bucket, member)
-- What a member allows now, the latest first.
select consent_id, member_id, partner_id, purpose, scopes, data_classes, notice_version, granted_at, withdrawn_at
  from consent
 where bucket = :bucket
   and member_id = :member
   and withdrawn_at is null
 order by granted_at desc, consent_id desc;

-- name: withdrawn_consents(bucket, member, most)
-- What a member allowed once, the latest first.
select consent_id, member_id, partner_id, purpose, scopes, data_classes, notice_version, granted_at, withdrawn_at
  from consent
 where bucket = :bucket
   and member_id = :member
   and withdrawn_at is not null
 order by granted_at desc, consent_id desc
 limit :most;

-- name: withdraw_consent(bucket, consent_id, member, now)^
-- A member's consent stands no more; one that was withdrawn before stays as it is.
update consent
   set withdrawn_at = coalesce(withdrawn_at, :now)
 where bucket = :bucket
   and consent_id = :consent_id
   and member_id = :member
returning consent_id, member_id, partner_id, purpose, scopes, data_classes, notice_version, granted_at, withdrawn_at;

-- name: end_families_of_consent(consent_id, now)!
-- Refresh tokens that were given under a consent serve no more.
update token_family
   set ended_at = coalesce(ended_at, :now)
 where consent_id = :consent_id;
