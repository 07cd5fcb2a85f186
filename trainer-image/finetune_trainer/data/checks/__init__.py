"""What is looked for in the rows, one file each. All of it is pure: text or arrays in, findings out."""
