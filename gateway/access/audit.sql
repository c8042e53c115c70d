-- name: note_deed(at, actor_kind, actor, client, token, action, result, about, sealed)!
-- Add a deed to the log and chain it.
select public.note_deed(:at, :actor_kind, :actor, :client, :token, :action, :result, :about, :sealed);

-- name: deeds(before, most, actor, about, field)
-- The log before a number, the latest first: all of it, or what one did, what was done to one, or with a field.
select number, at, actor_kind, actor_id, client_id, token_id, action, result, about, sealed
  from audit_log
 where number < :before
   and (:actor::uuid is null or actor_id = :actor)
   and (:about::text is null or about @> array[:about::text])
   and (:field::text is null or :field = any(string_to_array(action, ' ')))
 order by number desc
 limit :most;
