-- depends: 0066_only_what_was_credited
-- A time zone by a name that only the gateway's machine had for it was taken, and then releases and reversals failed.

update coalition
   set timezone = regexp_replace(timezone, '^(posix|right)/', '')
 where timezone ~ '^(posix|right)/';
