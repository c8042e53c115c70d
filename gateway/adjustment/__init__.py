"""Adjustments: what operators correct, with a reason, and above a limit with a second operator's approval."""
