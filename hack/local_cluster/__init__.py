"""A real Kubernetes on one machine, for tests and the demo (see ``hack/cluster --help``)."""
