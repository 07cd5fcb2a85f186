"""A real Kubernetes on one machine, for tests and the demo (see ``tests/cluster/cluster --help``)."""
