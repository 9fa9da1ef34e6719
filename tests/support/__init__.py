"""Real parts for tests: brokers, networks that fail, and what looks at the session from outside."""
