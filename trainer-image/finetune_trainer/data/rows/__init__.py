"""From the rows of a file to checked examples."""
