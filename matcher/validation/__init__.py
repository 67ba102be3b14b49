"""Options: dataclasses that check themselves, and the words of a command line that fill them."""
