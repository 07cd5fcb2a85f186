"""The processes that train one adapter together, one per GPU."""
