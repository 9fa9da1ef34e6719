"""Where everything durable lives. SQL, peewee and drivers stay inside this package.

`store` states the interface and its promises, `sqlite` keeps them on one file, `writer` is the thread that
commits; one file for each table holds its verbs: functions on an open transaction, and statements to read.
"""
