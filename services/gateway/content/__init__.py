"""Reading and rewriting of the headers and bodies of messages."""
