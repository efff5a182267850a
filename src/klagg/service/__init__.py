"""Who is connected to whom: the composition of the stages into a running service."""
