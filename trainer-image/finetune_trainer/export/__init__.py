"""The third stage, on a CPU: it merges, converts, compares, uploads and writes the manifest."""
