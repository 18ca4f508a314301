"""One crossbar with its converters: `program` once, `mvm` many times."""
