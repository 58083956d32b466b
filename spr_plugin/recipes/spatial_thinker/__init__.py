"""SpatialThinker: an answer writes the scene graph that it reasons on, and is paid for both."""
