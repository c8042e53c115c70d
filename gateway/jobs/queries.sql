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

-- name: partners_short_of_credit()
-- Partners who have used so much of their credit that they should pay.
select p.code, c.limit_minor, sum(s.used) as used
  from partner_credit c
  join credit_slot s on s.partner_id = c.partner_id
  join partner p on p.partner_id = c.partner_id
 group by p.code, c.limit_minor, c.warn_percent
having sum(s.used) * 100 >= c.limit_minor * c.warn_percent
 order by p.code;
