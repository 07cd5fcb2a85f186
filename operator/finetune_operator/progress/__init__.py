"""The progress that pods send: who may send it, and how it reaches the status."""
