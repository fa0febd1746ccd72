"""Adapters of the ports to AWS. No vendor error leaves this package."""
