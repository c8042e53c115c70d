-- depends: 0017_transfers
-- A partner's credit, used by its purchases, set and paid by operators; and what the application may do with all of
-- the above.

-- Take a batch's charges from its partners' credit: from the slot of the batch, or, with `dealing`, from all that is
-- left, which is then dealt out to the slots anew. Answers the verdicts, where CREDIT_SHORT asks to be called again
-- with `dealing`. Slots are locked in the order of (partner, slot), and all of them only from the start, so two
-- batches never wait for each other in a circle.
create function take_credit(
  partners uuid[], prices numeric[], term smallint[], points bigint[], verdicts text[], of_slot smallint, dealing boolean
) returns text[]
language plpgsql volatile as $$
declare
  charged record;
  answers text[] := verdicts;
  so_far numeric;
  left_over numeric;
  item record;
begin
  perform from public.credit_slot s
    where s.partner_id = any(partners) and (dealing or s.slot = of_slot)
    order by s.partner_id, s.slot
      for update;
  for charged in
    select distinct c.partner_id, c.limit_minor
      from public.partner_credit c where c.partner_id = any(partners) order by 1
  loop
    select case when dealing then charged.limit_minor - sum(s.used) else sum(s.allotted - s.used) end
      into left_over
      from public.credit_slot s
     where s.partner_id = charged.partner_id and (dealing or s.slot = of_slot);
    so_far := 0;
    for item in
      select i.n, i.points * prices[i.term] * 100 as charge
        from unnest(term, points, verdicts) with ordinality i (term, points, verdict, n)
       where i.verdict = 'post' and i.points > 0 and partners[i.term] = charged.partner_id
       order by i.n
    loop
      if item.charge = 0 or so_far + item.charge <= left_over then
        so_far := so_far + item.charge;
      else
        answers[item.n] := case when dealing then 'CREDIT_LIMIT_REACHED' else 'CREDIT_SHORT' end;
      end if;
    end loop;
    if dealing then
      update public.credit_slot s
         set used = s.used + case when s.slot = of_slot then so_far else 0 end
       where s.partner_id = charged.partner_id;
      update public.credit_slot s
         set allotted = s.used + trunc((charged.limit_minor - t.used) / 16, 6)
        from (select sum(u.used) as used from public.credit_slot u where u.partner_id = charged.partner_id) t
       where s.partner_id = charged.partner_id;
    elsif so_far > 0 then
      update public.credit_slot s
         set used = s.used + so_far
       where s.partner_id = charged.partner_id and s.slot = of_slot;
    end if;
  end loop;
  -- Nothing is posted around what asks to be called again: the caller sends the whole batch anew.
  if 'CREDIT_SHORT' = any(answers) then
    raise exception 'credit is short in slot %', of_slot using errcode = 'LG001';
  end if;
  return answers;
end $$;

-- Set what a partner may owe, and deal it out to its slots.
create function set_credit(of_partner uuid, wanted bigint, warn int, at timestamptz) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, public as $$
begin
  insert into public.partner_credit (partner_id, limit_minor, warn_percent, set_at)
  values (of_partner, wanted, warn, at)
  on conflict (partner_id) do update set limit_minor = excluded.limit_minor, warn_percent = excluded.warn_percent,
                                         set_at = excluded.set_at;
  insert into public.credit_slot (partner_id, slot, allotted)
  select of_partner, s, 0 from generate_series(0, 15) s
  on conflict do nothing;
  perform public.deal_credit(of_partner, 0);
end $$;

-- A payment of the partner, in minor units, frees its credit. False when the key was used before.
create function pay_credit(owner uuid, key text, of_partner uuid, amount bigint, reference text, at timestamptz)
returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, public as $$
begin
  insert into public.credit_payment (owner_id, key, partner_id, amount_minor, reference, paid_at)
  values (owner, key, of_partner, amount, reference, at)
  on conflict do nothing;
  if not found then
    return false;
  end if;
  perform public.deal_credit(of_partner, amount);
  return true;
end $$;

create function deal_credit(of_partner uuid, paid numeric) returns void
language plpgsql volatile
set search_path = pg_catalog, public as $$
begin
  perform from public.credit_slot s where s.partner_id = of_partner order by s.slot for update;
  update public.credit_slot s set used = s.used - case s.slot when 0 then paid else 0 end
   where s.partner_id = of_partner;
  update public.credit_slot s
     set allotted = s.used + trunc((c.limit_minor - t.used) / 16, 6)
    from public.partner_credit c,
         (select sum(u.used) as used from public.credit_slot u where u.partner_id = of_partner) t
   where s.partner_id = of_partner and c.partner_id = of_partner;
end $$;

-- Blocks: sealed runs of transactions, each chained to the one before. `merkle_root` is over the leaves in their
-- order; `hash` over height, previous hash, root, number of leaves and time; `signature` over the hash (ES256).
create table block (
  height bigint primary key check (height > 0),
  previous_hash bytea not null,
  merkle_root bytea not null,
  leaves bigint not null check (leaves > 0),
  through_xid xid8 not null,
  sealed_at timestamptz not null,
  hash bytea not null unique,
  key_id text not null references signing_key,
  signature bytea not null
);
create table sealed (
  bucket smallint not null check (bucket between 0 and 255),
  transaction_id uuid not null,
  height bigint not null,
  ordinal int not null check (ordinal >= 0),
  leaf bytea not null,
  primary key (bucket, transaction_id)
);
create index sealed_in_block on sealed (height, ordinal);

-- Keep a block with its leaves; false when another process has sealed this height.
create function seal_block(
  of_height bigint, previous bytea, root bytea, through xid8, at timestamptz, block_hash bytea, of_key text, signed bytea,
  buckets smallint[], transactions uuid[], leaves bytea[]
) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, public as $$
begin
  insert into public.block (height, previous_hash, merkle_root, leaves, through_xid, sealed_at, hash, key_id, signature)
  values (of_height, previous, root, cardinality(transactions), through, at, block_hash, of_key, signed)
  on conflict do nothing;
  if not found then
    return false;
  end if;
  insert into public.sealed (bucket, transaction_id, height, ordinal, leaf)
  select i.bucket, i.transaction, of_height, i.n - 1, i.leaf
    from unnest(buckets, transactions, leaves) with ordinality i (bucket, transaction, leaf, n);
  return true;
end $$;

-- What a partner owes back for redemptions that were reversed.
alter table statement_line drop constraint statement_line_kind_check;
alter table statement_line add constraint statement_line_kind_check
  check (kind in ('issue', 'return', 'fee', 'redeem', 'reversal', 'conversion'));

grant select on all tables in schema public to gateway_app;
revoke execute on all functions in schema public from public;
grant execute on function post_earnings, post_redemptions, post_returns, post_reversal, post_holds, post_captures,
  post_release, post_run_out_holds, post_maturities, post_expiries, post_transfer, post_adjustment, place_hold,
  release_hold, post_conversion, set_credit, pay_credit, seal_block to gateway_app;
grant insert, update on adjustment to gateway_app;
