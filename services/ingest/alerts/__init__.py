"""Alerts of budgets and upstream keys, sent to a webhook."""
