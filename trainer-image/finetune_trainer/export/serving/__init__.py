"""What is written for those who serve the result."""
