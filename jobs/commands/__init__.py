"""The commands, by what they are for: each parses, imports what it needs, and exits with its code."""
