"""Image files: which formats there are, what decoding costs, and pixels as upright 8-bit sRGB."""
