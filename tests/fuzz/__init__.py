"""What no app would write: targets for a fuzzer, and what was found with them."""
