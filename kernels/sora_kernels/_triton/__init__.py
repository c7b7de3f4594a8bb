"""The kernels. Importing a module of this package imports Triton, so operators do it when they are to run there."""
