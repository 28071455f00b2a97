"""What the guides in `docs/howto` say about applications, run with the real frameworks."""
