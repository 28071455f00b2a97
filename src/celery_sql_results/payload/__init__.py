"""What a row is made of: payloads, exceptions, and what is hidden of arguments."""
