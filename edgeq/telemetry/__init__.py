"""What edgeq says about itself: counters, log lines, health, and what systemd is told."""
