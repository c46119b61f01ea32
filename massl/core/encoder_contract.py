"""What writers and readers of encoder files agree on (`docs/reference/encoder-file.md`)."""

FORMAT = "1"  # `massl.format`
LARGEST_SIDE = 2_048  # pixels of an encoder's input
MOST_SIZES = 32  # that a file lists
