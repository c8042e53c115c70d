-- depends: 0049_payments
-- A member gives and withdraws consents as often as it likes: those that stand, and the latest of the others, are found at once.

create index consent_standing on consent (bucket, member_id, granted_at desc, consent_id desc) where withdrawn_at is null;
create index consent_withdrawn on consent (bucket, member_id, granted_at desc, consent_id desc) where withdrawn_at is not null;
drop index consent_of_member;
