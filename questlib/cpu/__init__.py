"""How a CPU is made fast. Nothing of it shows on the main path but a call."""
