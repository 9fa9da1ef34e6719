"""The pages that edgeq serves, and the server that serves them.

It stands below `parts`, which runs it beside everything else of a configuration; what a page shows or changes it gets
from the store.
"""
