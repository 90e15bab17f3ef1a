"""From weights to a folder that runs elsewhere, and the proof that it finds the same things."""
