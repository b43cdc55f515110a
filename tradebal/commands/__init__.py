"""One module for each command of the command line: its arguments, then a call into the part that does the work."""
