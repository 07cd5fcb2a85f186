"""Remedies that several messages share, as whole sentences."""

RECREATE = "Delete this FineTuneJob and create it again."
