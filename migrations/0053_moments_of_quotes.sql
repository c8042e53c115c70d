-- depends: 0052_revocations_in_order
-- An exchange occurs at the moment whose rate was quoted, or in the minutes after it: its rate and its contract are of one time.

alter table quote add column priced_at timestamptz;
update quote set priced_at = quoted_at;
alter table quote alter column priced_at set not null;
