-- depends: 0050_consents
-- A partner sees an adjustment that was made on its behalf, as it sees the transaction that it is; without the reason, which the
-- gateway does not tell it.

drop policy own on adjustment;
create policy own on adjustment for select to gateway_reader
  using (member_id = (select reading_member())
         or (partner_id = (select reading_partner()) and state = 'posted'));
