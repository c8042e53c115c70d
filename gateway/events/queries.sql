-- name: batches_from(xid, batch, most)
-- Batches from a cursor on, the cursor's own included, as far as nothing that still runs can come before them.
select o.xid::text as xid, o.batch_id, o.kind, o.posted_at, o.members, o.transactions
  from outbox o
 where (o.xid, o.batch_id) >= ((:xid::text)::xid8, :batch::uuid)
   and o.xid < pg_snapshot_xmin(pg_current_snapshot())
 order by o.xid, o.batch_id
 limit :most;

-- name: batches_of_member_from(xid, batch, member, most)
-- Of so many batches from a cursor on, those with one member, and the last one, numbered from 1.
select s.xid::text as xid, s.batch_id, s.kind, s.posted_at, s.members, s.transactions, s.place
  from (
    select o.xid, o.batch_id, o.kind, o.posted_at, o.members, o.transactions,
           row_number() over (order by o.xid, o.batch_id) as place, count(*) over () as places
      from (
        select *
          from outbox b
         where (b.xid, b.batch_id) >= ((:xid::text)::xid8, :batch::uuid)
           and b.xid < pg_snapshot_xmin(pg_current_snapshot())
         order by b.xid, b.batch_id
         limit :most) o) s
 where :member = any(s.members)
    or s.place = s.places
 order by s.place;

-- name: is_of_another_server()$
-- Whether batches were written by transactions that this server has not come to yet.
select coalesce((select o.xid from outbox o order by o.xid desc limit 1) >= pg_snapshot_xmax(pg_current_snapshot()), false);

-- name: last_batch()^
-- The last batch that can be read: nothing that still runs can come before it.
select o.xid::text as xid, o.batch_id, o.members
  from outbox o
 where o.xid < pg_snapshot_xmin(pg_current_snapshot())
 order by o.xid desc, o.batch_id desc
 limit 1;
