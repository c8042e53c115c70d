-- depends: 0064_nothing_undecided
-- A rate from the first or the last moment of the calendar was kept as one of all times, which no moment compares with: nothing of
-- its pair could be exchanged, and no rate be shown. What was meant as "since ever" stays; what was never to begin, does not.

update conversion_rate set valid_from = '1000-01-01T00:00:00Z' where valid_from = '-infinity';
update conversion_rate set valid_from = '9999-12-31T00:00:00Z' where valid_from = 'infinity';
alter table conversion_rate add check (isfinite(valid_from));
