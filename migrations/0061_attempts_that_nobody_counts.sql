-- depends: 0060_nothing_a_partner_says
-- How often an order was moved was written and read by nobody.

alter table conversion drop column attempts;
