"""Who may come in, and what they may do: the OAuth server, token verification, scopes."""
