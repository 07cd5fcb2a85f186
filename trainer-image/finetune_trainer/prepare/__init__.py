"""The first stage, on a CPU: checks access, model and data, and tokenizes the rows."""
