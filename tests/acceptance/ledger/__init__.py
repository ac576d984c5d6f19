"""Every request is in the ledger exactly once."""
