"""How a collection is: drift, health, and other encoders beside its own."""
