"""When a FineTuneJob is looked at, and by which replica."""
