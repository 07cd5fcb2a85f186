"""What llama.cpp needs to be run: its scripts, and its log."""
