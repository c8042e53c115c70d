-- depends: 0042_limits
-- Refresh tokens of a family come in generations: of each one serves, and what else is of it for as long as the grace lasts.

alter table refresh_token add column generation int;
update refresh_token r set generation = o.generation
  from (select token_hash, row_number() over (partition by family_id order by issued_at, token_hash) as generation from refresh_token) o
 where o.token_hash = r.token_hash;
alter table refresh_token alter column generation set not null;
drop index refresh_token_of_parent;
alter table refresh_token drop column parent_hash;
