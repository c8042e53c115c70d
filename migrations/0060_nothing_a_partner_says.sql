-- depends: 0059_whose_debt
-- What a partner's system answers may be of its customer: it is kept nowhere.

alter table conversion drop column last_error;
