"""The files of a collection: its folder, catalog and lock, the copy of its encoder, the images; and the command that
brings it up to date.
"""
