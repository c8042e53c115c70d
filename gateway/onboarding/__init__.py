"""What operators do to the coalition: create it and its programmes, onboard partners, publish contracts."""
