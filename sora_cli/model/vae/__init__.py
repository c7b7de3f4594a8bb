"""Video autoencoders, one module for each kind."""
