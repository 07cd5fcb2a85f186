"""How much the operator costs a cluster, beside plain Jobs that do the same."""
