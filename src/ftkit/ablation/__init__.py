"""Ablations: a folder of configs becomes runs, a ledger, and results that are read back."""
