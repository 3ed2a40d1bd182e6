"""Routes of the server: a thin module for each protocol, on the shared request of `webui.generation`."""
