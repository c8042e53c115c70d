-- name: pull_back(jobs, most)!
-- Runs, and signs of life of runs, that lie further ahead than any job waits: a clock of the database that was ahead has left them.
update pgqueuer_schedules
   set next_run = least(next_run, now()),
       heartbeat = least(heartbeat, now())
 where entrypoint = any(:jobs::text[])
   and (next_run > now() + :most or heartbeat > now() + :most);

-- name: begin_run(job, at)!
-- A run of a job begins.
insert into job_run (job, began_at)
values (:job, :at)
on conflict (job) do update
  set began_at = excluded.began_at,
      ended_at = null;

-- name: end_run(job, at, done, error)!
-- A run of a job ended, well or with an error.
update job_run
   set ended_at = :at,
       succeeded_at = case when :error::text is null then :at else succeeded_at end,
       done = done + :done,
       error = :error::text
 where job = :job;

-- name: runs()
-- What each job did last.
select job, began_at, ended_at, succeeded_at, done, error
  from job_run
 order by job;

-- name: place_debts(after_bucket, after_member, after_programme, most)^
-- Places what members owe after returns with the partners that bear it, in so many wallets; answers of where to go on.
select wallets, last_bucket, last_member, last_programme, changed
  from place_debts(:after_bucket, :after_member, :after_programme, :most);

-- name: partners_of_moved_debts()
-- Whose credit is to be dealt by debts that were placed anew.
select distinct partner_id from debt_moved order by partner_id;

-- name: deal_moved_debts(partner)$
-- Deals a partner's credit by them.
select deal_moved_debts(:partner);

-- name: warn_of_credit(at)
-- Partners who have used so much of their credit, or of what they paid last, that they should pay, each once until they have.
with standing as (
  select c.partner_id, sum(s.used) as used,
         case when c.limit_minor > 0 then sum(s.used) * 100 >= c.limit_minor * c.warn_percent
              else -sum(s.used) * 100 <= c.last_paid_minor * (100 - c.warn_percent) end as short
    from partner_credit c
    join credit_slot s on s.partner_id = c.partner_id
   group by c.partner_id, c.limit_minor, c.warn_percent, c.last_paid_minor)
update partner_credit c
   set warned_at = case when s.short then :at::timestamptz end
  from standing s
  join partner p on p.partner_id = s.partner_id
 where c.partner_id = s.partner_id
   and s.short <> (c.warned_at is not null)
returning p.code, c.limit_minor, s.used, s.short;
