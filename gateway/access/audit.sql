-- name: note_deed(at, actor_kind, actor, client, token, action, result, sealed)!
-- Add a deed to the log and chain it.
select public.note_deed(:at, :actor_kind, :actor, :client, :token, :action, :result, :sealed);

-- name: deeds(before, most)
-- The log before a number, the latest first.
select number, at, actor_kind, actor_id, client_id, token_id, action, result, sealed
  from audit_log
 where number < :before
 order by number desc
 limit :most;
