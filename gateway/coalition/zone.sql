-- name: zone_steps(timezone, first, last, step)
-- By how many seconds a time zone is ahead of UTC: at first, and where that differs from a step before; in seconds of the epoch.
select before, after, was, ahead
  from (select at as after, ahead, lag(at) over (order by at) as before, lag(ahead) over (order by at) as was
          from (select at, extract(epoch from (to_timestamp(at) at time zone :timezone)
                                              - (to_timestamp(at) at time zone 'UTC'))::int as ahead
                  from generate_series(:first::bigint, :last::bigint, :step::bigint) at) asked) told
 where was is distinct from ahead
 order by after;

-- name: zone_ahead(timezone, moments)
-- By how many seconds a time zone is ahead of UTC at moments, in their order.
select extract(epoch from (to_timestamp(m.at) at time zone :timezone) - (to_timestamp(m.at) at time zone 'UTC'))::int as ahead
  from unnest(:moments::bigint[]) with ordinality m (at, number)
 order by m.number;

-- name: zone_is_known(timezone)$
-- Whether the database knows a time zone by this name, which is not an abbreviation.
select exists (select from pg_timezone_names where name = :timezone);
