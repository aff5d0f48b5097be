"""The rules: one file each, readable alone."""
