"""What every stage runs in: plan, environment, signals, log."""
