-- name: trusted_document(client_id, document_id)$
-- A document of a client.
select text
  from trusted_document
 where client_id = :client_id
   and document_id = :document_id;

-- name: store_documents(client_id, ids, texts, now)!
-- Register documents of a client; those that are there stay.
insert into trusted_document (client_id, document_id, text, registered_at)
select :client_id, i.id, i.text, :now
  from unnest(:ids::text[], :texts::text[]) i (id, text)
on conflict do nothing;
