"""How a person becomes known to a partner: enrolled as a member, or linked by a card."""
