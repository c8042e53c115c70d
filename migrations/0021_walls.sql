-- depends: 0020_access
-- The second wall: what a partner or a member asks for is read by a role of its own, which sees only the rows that are
-- theirs, whatever a query forgets to say. `app.partner` and `app.member` are set for one transaction by the gateway.

do $$ begin
  create role gateway_reader nologin;
exception when duplicate_object or unique_violation then null;
end $$;
grant gateway_reader to current_user;
grant usage on schema public to gateway_reader;

-- Who reads. (After a transaction that set it, a setting is empty and not null.)
create function reading_partner() returns uuid
language sql stable as $$ select nullif(current_setting('app.partner', true), '')::uuid $$;
create function reading_member() returns uuid
language sql stable as $$ select nullif(current_setting('app.member', true), '')::uuid $$;
revoke execute on function reading_partner, reading_member from public;
grant execute on function reading_partner, reading_member to gateway_reader;

-- Every table that holds somebody's data; the gateway's own role and the owner go past the wall, also where the owner is
-- no superuser.
do $$
declare
  walled regclass;
begin
  foreach walled in array array[
    'member', 'membership', 'external_id', 'card', 'wallet', 'lot', 'transaction', 'entry', 'lot_take', 'purchase',
    'receipt', 'purchase_return', 'redemption', 'reversal', 'idempotency', 'hold', 'hold_lot', 'quote', 'conversion',
    'transfer', 'adjustment', 'spending', 'expiry_due', 'maturing', 'statement', 'statement_line', 'partner_credit',
    'credit_slot', 'credit_payment', 'outbox', 'sealed', 'account', 'oauth_client', 'oauth_secret', 'token_family',
    'refresh_token', 'authorization_code', 'console_session', 'pushed_request', 'login_failure', 'signing_key'
  ]::regclass[] loop
    execute format('alter table %s enable row level security', walled);
    execute format('alter table %s force row level security', walled);
    execute format('create policy past_the_wall on %s to gateway_app, %I using (true) with check (true)', walled, current_user);
  end loop;
end $$;

grant select on coalition, partner, programme, store, contract, conversion_rate, period, block to gateway_reader;
grant select on member, membership, external_id, card, wallet, lot, transaction, entry, lot_take, purchase, receipt,
  purchase_return, redemption, reversal, hold, hold_lot, quote, conversion, transfer, adjustment, spending, expiry_due,
  maturing, statement, statement_line, partner_credit, credit_slot, credit_payment, sealed to gateway_reader;

-- A member and what it holds: itself, and the partners that it has joined.
create policy own on membership for select to gateway_reader
  using (partner_id = (select reading_partner()) or member_id = (select reading_member()));
create policy own on member for select to gateway_reader
  using (member_id = (select reading_member())
         or exists (select from membership m where m.bucket = member.bucket and m.member_id = member.member_id));
create policy own on external_id for select to gateway_reader
  using (partner_id = (select reading_partner()));
create policy own on card for select to gateway_reader
  using (member_id = (select reading_member())
         or exists (select from membership m where m.bucket = card.bucket and m.member_id = card.member_id));
create policy own on wallet for select to gateway_reader
  using (member_id = (select reading_member())
         or exists (select from membership m where m.bucket = wallet.bucket and m.member_id = wallet.member_id));
create policy own on lot for select to gateway_reader
  using (member_id = (select reading_member())
         or exists (select from membership m where m.bucket = lot.bucket and m.member_id = lot.member_id));
create policy own on spending for select to gateway_reader using (member_id = (select reading_member()));
create policy own on expiry_due for select to gateway_reader using (member_id = (select reading_member()));

-- What happened: to the member, or at the partner.
create policy own on transaction for select to gateway_reader
  using (member_id = (select reading_member())
         or partner_id = (select reading_partner())
         or exists (select from membership m
                     where m.bucket = transaction.bucket and m.membership_id = transaction.membership_id));
create policy own on entry for select to gateway_reader
  using (exists (select from transaction t where t.bucket = entry.bucket and t.transaction_id = entry.transaction_id));
create policy own on lot_take for select to gateway_reader
  using (exists (select from transaction t where t.bucket = lot_take.bucket and t.transaction_id = lot_take.transaction_id));
create policy own on purchase for select to gateway_reader
  using (member_id = (select reading_member()) or partner_id = (select reading_partner()));
create policy own on maturing for select to gateway_reader
  using (exists (select from purchase p where p.bucket = maturing.bucket and p.transaction_id = maturing.transaction_id));
create policy own on receipt for select to gateway_reader using (partner_id = (select reading_partner()));
create policy own on purchase_return for select to gateway_reader
  using (exists (select from purchase p
                  where p.bucket = purchase_return.bucket and p.transaction_id = purchase_return.purchase_id));
create policy own on redemption for select to gateway_reader
  using (exists (select from transaction t where t.bucket = redemption.bucket and t.transaction_id = redemption.transaction_id));
create policy own on reversal for select to gateway_reader
  using (exists (select from transaction t where t.bucket = reversal.bucket and t.transaction_id = reversal.transaction_id));
create policy own on hold for select to gateway_reader
  using (member_id = (select reading_member()) or partner_id = (select reading_partner()));
create policy own on hold_lot for select to gateway_reader
  using (exists (select from hold h where h.bucket = hold_lot.bucket and h.hold_id = hold_lot.hold_id));
create policy own on quote for select to gateway_reader
  using (member_id = (select reading_member())
         or exists (select from membership m where m.bucket = quote.bucket and m.membership_id = quote.membership_id));
create policy own on conversion for select to gateway_reader
  using (member_id = (select reading_member())
         or exists (select from membership m where m.bucket = conversion.bucket and m.membership_id = conversion.membership_id));
create policy own on transfer for select to gateway_reader
  using (exists (select from transaction t where t.bucket = transfer.bucket and t.transaction_id = transfer.transaction_id));
create policy own on adjustment for select to gateway_reader using (member_id = (select reading_member()));
create policy own on sealed for select to gateway_reader
  using (exists (select from transaction t where t.bucket = sealed.bucket and t.transaction_id = sealed.transaction_id));

-- A partner's money.
create policy own on statement for select to gateway_reader using (partner_id = (select reading_partner()));
create policy own on statement_line for select to gateway_reader
  using (exists (select from statement s where s.statement_id = statement_line.statement_id));
create policy own on partner_credit for select to gateway_reader using (partner_id = (select reading_partner()));
create policy own on credit_slot for select to gateway_reader using (partner_id = (select reading_partner()));
create policy own on credit_payment for select to gateway_reader using (partner_id = (select reading_partner()));
