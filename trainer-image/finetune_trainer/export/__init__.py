"""The third stage, on a CPU: merges, converts, compares and uploads the files, and writes the manifest."""
