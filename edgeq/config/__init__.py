"""The configuration: typed records (`schema`) and the way from YAML to them (`load`)."""
