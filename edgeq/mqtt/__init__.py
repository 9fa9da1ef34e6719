"""The session with the broker: topics, deliveries, and the one file that knows paho."""
