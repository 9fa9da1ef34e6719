"""What people and other programs are told, and how it gets to them.

`text` makes a notification's text from an event, once; `policy` says which channels it goes to; both are used by the
processor `courier`, which queues it in the table `notifications`. `outbox` has one sender for each channel, which goes
by `picking` (what is next, and what is told together, in the words of `digest`) and `bucket` (when); `channels` has one
file for each kind.
"""
