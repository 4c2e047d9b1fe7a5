"""Orders in a simulation: how they are answered, and what that does to the service of a jurisdiction."""
