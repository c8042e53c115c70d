-- depends: 0008_access
-- The application's role: it selects, executes posting functions and writes what is not the ledger. It owns nothing.

do $$ begin
  create role gateway_app nologin;
exception when duplicate_object or unique_violation then null;
end $$;

grant gateway_app to current_user;
grant usage on schema public to gateway_app;
grant select on all tables in schema public to gateway_app;
revoke execute on all functions in schema public from public;
grant execute on function post_earnings, post_redemptions, post_returns, post_expiries, place_hold, release_hold,
  post_conversion, begin_closing, finish_closing to gateway_app;
grant insert, update on coalition, partner, programme, store, contract, conversion_rate, member, membership, external_id,
  card, quote, conversion, oauth_client, account, signing_key, authorization_code, console_session to gateway_app;
grant insert on statement, statement_line, period_programme to gateway_app;
grant delete on console_session, authorization_code to gateway_app;
