"""Budgets and limits per minute as Redis counts them: once, in the window of each
request, and summed anew when what was spent is in doubt."""
