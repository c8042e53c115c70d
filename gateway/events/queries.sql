-- name: batches_from(xid, batch, most)
-- Batches from a cursor on, the cursor's own included, as far as nothing that still runs can come before them.
select o.xid::text as xid, o.batch_id, o.kind, o.posted_at, o.members, o.transactions
  from outbox o
 where (o.xid, o.batch_id) >= ((:xid::text)::xid8, :batch::uuid)
   and o.xid < pg_snapshot_xmin(pg_current_snapshot())
 order by o.xid, o.batch_id
 limit :most;
