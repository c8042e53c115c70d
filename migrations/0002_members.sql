-- depends: 0001_coalition
-- Members and how partners know them. `bucket` is the last byte of the member's id; what belongs to a member
-- carries it first in its key, so that a distributed engine can keep it together.

create table member (
  bucket smallint not null check (bucket between 0 and 255),
  member_id uuid not null,
  since timestamptz not null,
  primary key (bucket, member_id)
);

create table membership (
  bucket smallint not null check (bucket between 0 and 255),
  membership_id uuid not null,
  member_id uuid not null,
  partner_id uuid not null references partner,
  external_id text not null,
  status text not null default 'active' check (status in ('active', 'suspended')),
  since timestamptz not null,
  primary key (bucket, membership_id),
  unique (bucket, member_id, partner_id),
  foreign key (bucket, member_id) references member
);

create index membership_of_partner on membership (partner_id, membership_id);

-- Identifiers that are unique across members live in tables of their own, keyed by the identifier.
create table external_id (
  partner_id uuid not null references partner,
  external_id text not null,
  bucket smallint not null,
  membership_id uuid not null,
  primary key (partner_id, external_id)
);

create table card (
  number text primary key,
  bucket smallint not null,
  member_id uuid not null,
  status text not null default 'active' check (status in ('active', 'blocked')),
  since timestamptz not null
);

create index card_of_member on card (bucket, member_id);
