"""Earning: purchases become points, and returns take them back."""
