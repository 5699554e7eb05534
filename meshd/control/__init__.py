"""The control socket: listen safely, frame, dispatch."""
