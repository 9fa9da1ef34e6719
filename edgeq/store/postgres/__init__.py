"""The store on PostgreSQL: one database that several machines share.

- `connecting`: the connections of a process, and their settings
- `schema`: the tables, and whether they keep the order of events
- `transaction`, `engine`: the writing connection
- `session`: the control session, which hears of what others commit
- `ownership`: the locks that it holds: what this process owns
- `faults`: what an error of the database says to an operator
- `store`: all of it together, with the reading connection
"""
