"""A store is copied to another database: between SQLite and PostgreSQL, or from one file or server to another.

- `tables`: what is copied
- `side`: what the copy needs of a database; `sqlite`, `postgres`: how each of them does it
- `copy`: the copy itself
"""
