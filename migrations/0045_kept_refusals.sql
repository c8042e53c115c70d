-- depends: 0044_large_sums
-- What the ledger refused an order is the answer to its key, as it is to every other.

create function keep_refusal(at timestamptz, owner uuid, key text, digest bytea, of_bucket smallint, refusal text) returns void
language sql volatile security definer
set search_path = pg_catalog, public, pg_temp as $$
  insert into public.idempotency (owner_id, key, bucket, digest, refusal, answered_at)
  values (owner, key, of_bucket, digest, refusal, at)
  on conflict do nothing
$$;
revoke execute on function keep_refusal from public;
grant execute on function keep_refusal to gateway_poster;
