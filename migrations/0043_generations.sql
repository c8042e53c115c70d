-- depends: 0042_limits
-- Refresh tokens of a family come in generations: of each one serves, and what else is of it for as long as the grace lasts.

alter table refresh_token add column generation int;
-- The first of a family that is still kept is the first generation.
with recursive walked as (
  select r.token_hash, 1 as generation
    from refresh_token r
   where not exists (select from refresh_token p where p.token_hash = r.parent_hash)
  union all
  select r.token_hash, w.generation + 1
    from refresh_token r
    join walked w on r.parent_hash = w.token_hash)
update refresh_token r set generation = w.generation from walked w where w.token_hash = r.token_hash;
alter table refresh_token alter column generation set not null;
drop index refresh_token_of_parent;
alter table refresh_token drop column parent_hash;
drop index refresh_token_of_family;
create index refresh_token_of_family on refresh_token (family_id, generation);
