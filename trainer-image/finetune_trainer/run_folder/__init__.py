"""What a run leaves in its folder for the next stage and for the operator."""
