"""What keeps the store small."""
