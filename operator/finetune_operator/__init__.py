"""The operator: turns FineTuneJobs into pods, and what pods say into status."""

__version__ = "0.1.0"
