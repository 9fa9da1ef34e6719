"""What keeps an appliance that runs for years in shape: what is old enough is deleted."""
