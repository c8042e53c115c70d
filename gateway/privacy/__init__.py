"""Privacy: what is known of members as people, and what they allow partners."""
