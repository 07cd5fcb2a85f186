"""The first stage, on a CPU: it checks access, model and data, and tokenizes the rows."""
