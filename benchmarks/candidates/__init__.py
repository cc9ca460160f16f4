"""What is measured: one module for each environment, since the packages cannot live together."""
