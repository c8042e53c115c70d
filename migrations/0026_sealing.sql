-- depends: 0025_issuers
-- What is sealed of a transaction is written in the database: a busy gateway seals without stopping for it.

-- A moment as sealed contents have it: RFC 3339 in UTC, with microseconds where there are any.
create function sealed_time(moment timestamptz) returns text
language sql stable as $$
  select to_char(moment at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')
         || case when date_trunc('second', moment) = moment then '' else to_char(moment at time zone 'UTC', '.US') end
         || '+00:00'
$$;

-- The canonical JSON of a transaction with its entries: sorted keys, no spaces. The member is named by a hash bound to the
-- transaction: a change of it shows, and a partner that gets the proof still does not learn the id.
create function sealed_content(t public.transaction) returns text
language sql stable as $$
  select '{"entries":['
         || coalesce((select string_agg('{"account":"' || e.account || '","contract":"' || e.contract_id
                                        || '","partner":"' || e.partner_id || '","points":' || e.points
                                        || ',"programme":"' || e.programme_id || '"}', ',' order by e.ordinal)
                        from public.entry e
                       where e.bucket = t.bucket and e.transaction_id = t.transaction_id), '')
         || '],"kind":"' || t.kind
         || '","member":"' || encode(sha256(uuid_send(t.transaction_id) || uuid_send(t.member_id)), 'hex')
         || '","membership":' || coalesce('"' || t.membership_id || '"', 'null')
         || ',"occurred_at":"' || public.sealed_time(t.occurred_at)
         || '","partner":' || coalesce('"' || t.partner_id || '"', 'null')
         || ',"period":"' || to_char(t.period, 'YYYY-MM-DD')
         || '","posted_at":"' || public.sealed_time(t.posted_at)
         || '","transaction":"' || t.transaction_id || '"}'
$$;

revoke execute on function sealed_time, sealed_content from public;
grant execute on function sealed_time, sealed_content to gateway_app;
