"""From text to text: what the rooms below make together, for training, for the commands and for Python."""
