"""What the pods of the stages look like."""
