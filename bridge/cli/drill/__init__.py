"""Faults on both clouds, on this machine, under load, with a ledger that is no part of the bridge."""
