"""What the operator serves: probes, metrics and TLS."""
