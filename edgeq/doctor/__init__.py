"""What is not right with an appliance and the machine that it runs on, and what to do about it.

Nothing is changed: the store is only read, the broker has what it had before, and no notification is sent. Each check
is a small function in the module of what it looks at; `checks` is the table of all of them.
"""
