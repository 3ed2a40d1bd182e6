"""One module a stage; each is also a script."""
