-- depends: 0061_attempts_that_nobody_counts
-- Who gets a gift gets its proof too, and was told there by whom each of the points had been funded: where the giver shops.

-- What is mixed into hashes of what no proof may say; who holds a proof cannot try names until one fits. It never changes.
-- `plain_until`: transactions that were posted by then are sealed as they were before, with every name.
create table sealing_secret (
  only_one boolean primary key default true check (only_one),
  secret bytea not null check (length(secret) = 32),
  plain_until timestamptz
);
insert into sealing_secret (secret, plain_until)
select sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), max(posted_at)
  from transaction
 where kind in ('transfer', 'expiry');
grant select on sealing_secret to gateway_app;

-- The canonical JSON of each transaction with its entries, as before. Of points that have moved with their funders, in gifts and
-- when they run out, it tells the sum and a hash of the entries, which shows a change of them and says no more.
create or replace view sealed_contents with (security_invoker = true) as
select t.bucket, t.transaction_id,
       '{"entries":['
       || coalesce(
            case when t.kind in ('transfer', 'expiry') and (s.plain_until is null or t.posted_at > s.plain_until)
            then (select string_agg('{"account":"' || e.account || '","hash":"' || e.hash || '","points":' || e.points
                                    || ',"programme":"' || e.programme_id || '"}', ',' order by e.account, e.programme_id)
                    from (select account, programme_id, sum(points) as points,
                                 encode(sha256(s.secret || uuid_send(t.transaction_id)
                                               || string_agg(uuid_send(contract_id) || uuid_send(partner_id) || int8send(points), ''
                                                             order by ordinal)), 'hex') as hash
                            from entry
                           where bucket = t.bucket and transaction_id = t.transaction_id
                           group by account, programme_id) e)
            else (select string_agg('{"account":"' || e.account || '","contract":"' || e.contract_id
                                    || '","partner":"' || e.partner_id || '","points":' || e.points
                                    || ',"programme":"' || e.programme_id || '"}', ',' order by e.ordinal)
                    from entry e
                   where e.bucket = t.bucket and e.transaction_id = t.transaction_id)
            end, '')
       || '],"kind":"' || t.kind
       || '","member":"' || encode(sha256(uuid_send(t.transaction_id) || uuid_send(t.member_id)), 'hex')
       || '","membership":' || coalesce('"' || t.membership_id || '"', 'null')
       || ',"occurred_at":"' || to_char(t.occurred_at at time zone 'UTC',
            case when date_trunc('second', t.occurred_at) = t.occurred_at then 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"'
                 else 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"' end)
       || '","partner":' || coalesce('"' || t.partner_id || '"', 'null')
       || ',"period":"' || to_char(t.period, 'YYYY-MM-DD')
       || '","posted_at":"' || to_char(t.posted_at at time zone 'UTC',
            case when date_trunc('second', t.posted_at) = t.posted_at then 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"'
                 else 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"' end)
       || '","transaction":"' || t.transaction_id || '"}' as content
  from transaction t
 cross join sealing_secret s;
