"""The programs of the command line: what `match.py` and the command `quadmatch` start."""
