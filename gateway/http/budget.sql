-- name: take_budget(holder, most, rate, needed, wanted)^
-- Take some of a budget in advance.
select taken, left_over
  from public.take_budget(:holder, :most, :rate, :needed, :wanted);
