"""Server and page: the APIs that existing clients speak, conversations, and a page to chat in."""
