"""Jobs dispatched by the clock."""
