"""Reads and writes of the cluster: the only modules that talk to the API server about jobs."""
