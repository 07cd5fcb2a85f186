"""The progress of a stage: shown, sent to the operator and watched."""
