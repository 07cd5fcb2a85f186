"""The progress that pods push: who may push it, and how it gets into the status."""
