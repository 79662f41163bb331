"""Several runs of one shape at once: a step of all of them, how many there are, their turns."""
