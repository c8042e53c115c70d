-- depends: 0027_choosing
-- The role that posts can do nothing else: it executes posting functions and has no right on any table. The gateway's own
-- role, which keeps what is no ledger, posts no more.

do $$ begin
  create role gateway_poster nologin;
exception when duplicate_object or unique_violation then null;
end $$;
grant gateway_poster to current_user;
grant usage on schema public to gateway_poster;

revoke execute on function post_earnings, post_redemptions, post_returns, post_reversal, post_holds, post_captures,
  post_release, post_run_out_holds, post_maturities, post_expiries, post_expiry_notices, post_transfer, post_adjustment,
  place_hold, release_hold, post_conversion, set_credit, pay_credit, seal_block from gateway_app;
grant execute on function post_earnings, post_redemptions, post_returns, post_reversal, post_holds, post_captures,
  post_release, post_run_out_holds, post_maturities, post_expiries, post_expiry_notices, post_transfer, post_adjustment,
  place_hold, release_hold, post_conversion, set_credit, pay_credit, seal_block to gateway_poster;
