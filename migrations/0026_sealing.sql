-- depends: 0025_issuers
-- What is sealed of a transaction is written in the database: a busy gateway seals without stopping for it.

-- The canonical JSON of each transaction with its entries: sorted keys, no spaces; times are RFC 3339 in UTC, with
-- microseconds where there are any. The member is named by a hash bound to the transaction: a change of it shows, and a
-- partner that gets the proof still does not learn the id.
create view sealed_contents with (security_invoker = true) as
select t.bucket, t.transaction_id,
       '{"entries":['
       || coalesce((select string_agg('{"account":"' || e.account || '","contract":"' || e.contract_id
                                      || '","partner":"' || e.partner_id || '","points":' || e.points
                                      || ',"programme":"' || e.programme_id || '"}', ',' order by e.ordinal)
                      from entry e
                     where e.bucket = t.bucket and e.transaction_id = t.transaction_id), '')
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
  from transaction t;

grant select on sealed_contents to gateway_app;
