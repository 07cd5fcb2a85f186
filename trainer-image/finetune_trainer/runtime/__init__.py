"""What every stage uses while it runs: plan, environment, signals, log."""
