"""One module per noun.  A module imports what it needs when a command runs, so that help stays quick."""
