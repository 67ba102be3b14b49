"""What programs have to do with the terminal: words, streams, exit codes."""
