"""Work that is done later, again if it fails, and never forgotten: job classes, and the workers that run them.

`job` is what authors write, `worker` claims and keeps the leases, `attempt` is the life of one claim.
"""
