"""How fast populations train beside plain loops: `make bench`."""
