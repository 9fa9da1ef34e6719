"""Work that is done later, again if it fails, and never forgotten: job classes, and the workers that run them.

`job` and `function` are what authors write, `settings` and `keys` what stands on it, `definition` what is known of it
once it is made; `dispatch` makes the row that is stored. `worker` claims and keeps the leases, `handling` calls the
author's code with a `context`, and says how it ended as an `outcome`.
"""
