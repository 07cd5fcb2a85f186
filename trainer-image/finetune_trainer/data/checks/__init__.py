"""The checks of the rows, one file each. They are pure: text or arrays in, findings out."""
