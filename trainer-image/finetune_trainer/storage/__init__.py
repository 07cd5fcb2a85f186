"""Where results are kept: a bucket or a folder."""
