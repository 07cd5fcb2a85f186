"""Prepares the data, trains the adapter and exports the result of one FineTuneJob.

The same program runs in a pod, on a laptop and on a bare GPU machine. Heavy libraries are imported inside functions,
after `environment` has set what they read at import.
"""
