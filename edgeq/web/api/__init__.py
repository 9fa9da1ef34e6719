"""The operations of the interface, by what they are about: each file has a class, and that its `operations`."""
