"""What the demo, the benchmarks and the tests start: a cluster with the operator in it, a small model, S3."""
