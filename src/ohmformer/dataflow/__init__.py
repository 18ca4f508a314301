"""When it runs: tasks in the order of a dataflow, the event engine, the closed form, and what a timeline says."""
