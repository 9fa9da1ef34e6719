"""A small cold store that isn't there: made-up sensors, a real broker in the process, and a view of what edgeq makes of it."""
