"""Partners' credit with the coalition."""
