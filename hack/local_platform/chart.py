"""The names under which the chart is installed, here and in benchmarks and tests."""

RELEASE = "finetune-operator"
OPERATOR_NAMESPACE = "finetune-system"
