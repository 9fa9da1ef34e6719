"""Processors read the events after their cursor, decide, and move the cursor in the same commit."""
