"""What to do about a FineTuneJob: pure functions from an observation to a decision."""
