"""The commands beside the three stages: `prepare --check` and `plan`."""
