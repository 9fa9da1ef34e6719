"""The command line: one file for each group of commands, imported when used."""
