-- depends: 0059_whose_debt
-- What a partner's system answers may be of its customer: it is kept nowhere.

alter table conversion drop column last_error;

-- What is under way is looked for partner by partner, so that one that is silent keeps no other waiting.
create index conversion_under_way_of_partner on conversion (partner_id, updated_at) where state in ('held', 'credited');
drop index conversion_under_way;
