"""One HTTP server for several models: a worker that owns them, three interfaces for programs, and a page."""
