"""Jobs in processes of their own: see `pool`."""
