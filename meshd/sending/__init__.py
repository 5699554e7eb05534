"""Everything that leaves: sends in order and under one id, requests and their replies."""
