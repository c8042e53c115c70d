-- depends: 0028_poster
-- Functions that run with their owner's rights look at nothing that their caller made: where a search path does not name
-- the temporary schema, PostgreSQL looks there first for types, and a caller's type could run a caller's code.

do $$
declare
  definer regprocedure;
begin
  for definer in select oid from pg_proc where pronamespace = 'public'::regnamespace and prosecdef loop
    execute format('alter function %s set search_path = pg_catalog, public, pg_temp', definer);
  end loop;
  execute format('revoke temporary on database %I from public', current_database());
end $$;
