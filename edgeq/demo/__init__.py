"""A small cold store that isn't there: made-up sensors, a real broker, and a view of what edgeq makes of it."""
