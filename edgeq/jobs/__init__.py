"""Work that is done later, again if it fails, and never forgotten: job classes, and the workers that run them.

`job` and `function` are what authors write, `settings` and `keys` what stands on it, `definition` what is known of it
once it is made; `dispatch` makes the row that is stored. `worker` runs the jobs of a queue: `attempts` are what it has
in hand, `round` is all that it says to the store. `handling` calls the author's code with a `context`, and says how it
ended as an `outcome`; `ends` says what that means for the job.
"""
