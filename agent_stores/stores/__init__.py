"""The stores: what all of them share, and a file or folder for each backend."""
