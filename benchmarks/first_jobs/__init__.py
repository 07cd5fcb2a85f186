"""First jobs that a newcomer would write."""
