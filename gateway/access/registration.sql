-- name: oauth_client(client_id)^
-- One client by its id.
select c.client_id, c.name, c.partner_id, c.jwks::text as jwks, c.jwks_uri, c.dpop_bound, c.redirect_uris, c.grants, c.scopes, c.purpose,
       p.status as partner_status,
       array(select s.secret_hash from oauth_secret s where s.client_id = c.client_id and s.ended_at is null) as secrets
  from oauth_client c
  left join partner p on p.partner_id = c.partner_id
 where c.client_id = :client_id;

-- name: store_oauth_client(client_id, name, partner_id, jwks, jwks_uri, dpop_bound, redirect_uris, grants, scopes, purpose, created_at)!
-- Register a client, or replace what is registered under its id.
insert into oauth_client (client_id, name, partner_id, jwks, jwks_uri, dpop_bound, redirect_uris, grants, scopes, purpose, created_at)
values (:client_id, :name, :partner_id, :jwks::text::jsonb, :jwks_uri, :dpop_bound, :redirect_uris, :grants, :scopes, :purpose, :created_at)
on conflict (client_id) do update
  set name = excluded.name,
      jwks = excluded.jwks,
      jwks_uri = excluded.jwks_uri,
      dpop_bound = excluded.dpop_bound,
      redirect_uris = excluded.redirect_uris,
      grants = excluded.grants,
      scopes = excluded.scopes,
      purpose = excluded.purpose;

-- name: store_secret(secret_hash, client_id, created_at)!
-- A further secret of a client.
insert into oauth_secret (secret_hash, client_id, created_at)
values (:secret_hash, :client_id, :created_at);

-- name: lock_client(client_id)!
-- Nobody else changes a client until the transaction ends.
select
  from oauth_client
 where client_id = :client_id
   for update;

-- name: end_secrets(client_id, made, others, ended_at)!
-- End all of a client's secrets but the one that was just made, if any, and so many others, the newest of them.
update oauth_secret
   set ended_at = :ended_at
 where client_id = :client_id
   and ended_at is null
   and secret_hash is distinct from :made::bytea
   and secret_hash not in (
     select s.secret_hash from oauth_secret s
      where s.client_id = :client_id and s.ended_at is null and s.secret_hash is distinct from :made::bytea
      order by s.created_at desc, s.secret_hash
      limit :others);
