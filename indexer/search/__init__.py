"""Search: the query, the index and its engines, what scores mean, and where in a picture the match is."""
