"""What people and other programs are told, and how it gets to them.

The processor `courier` has `telling` decide: by `policy` (the routes, with what they `match` and their `quiet` hours),
`silences` and `threads` (what is open, to be repeated, escalated and resolved), in the words of `text`; and queues the
`rows` in the table `notifications`. `outbox` has one sender for each channel, which goes
by `picking` (what is next, and what is told together, in the words of `digest`) and `bucket` (when); `channels` has one
file for each kind.
"""
