-- depends: 0051_adjustments_of_partners
-- A process reads of what was revoked only what came since it last read, by the transaction that wrote it; what commits late is
-- not missed (decision 0012 reads the outbox in the same way).

alter table revocation add column xid xid8 not null default pg_current_xact_id();
create index revocation_of_transaction on revocation (xid, mark);
