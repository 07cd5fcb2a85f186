"""What holds for every server that the trainer talks to."""
