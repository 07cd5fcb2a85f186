"""The operator: turns FineTuneJobs into pods, and what pods say into status."""
