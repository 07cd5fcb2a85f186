"""When a FineTuneJob is reconciled, and by which replica."""
