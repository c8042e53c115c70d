-- depends: 0031_fewer_rows
-- The private part of a key that signs lies in the database encrypted, under a key of the vault; `jwk` is its public part.
-- Keys that were made before are sealed when the gateway reads them first, since the database cannot do it.
alter table signing_key
  add column sealed bytea,
  add check (sealed is null or state <> 'retired');
