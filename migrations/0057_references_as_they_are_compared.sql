-- depends: 0056_what_is_owed_frees_no_credit
-- References of payments that migration 0054 filled in are compared as the gateway's own are (gateway/credit/credit.py): all dashes
-- are one, and letters that differ in more than their case are folded, too.

update credit_payment
   set plain = replace(replace(translate(lower(replace(normalize(reference, NFKC), ' ', '')),
                                         U&'\058A\05BE\1400\1806\2010\2011\2012\2013\2014\2015\2E17\2E1A'
                                          '\2E3A\2E3B\2E40\2E5D\301C\3030\30A0\FE31\FE32\FE58\FE63\FF0D\+010EAD\2212',
                                         repeat('-', 26)), 'ß', 'ss'), 'ς', 'σ')
 where plain = lower(replace(normalize(reference, NFKC), ' ', ''));
