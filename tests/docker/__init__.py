"""The image and the compose file, as far as they can be tried without a Docker engine."""
