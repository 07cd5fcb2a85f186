"""Storage for results: a bucket or a folder."""
