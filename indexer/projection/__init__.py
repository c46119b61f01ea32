"""The map: images as points in the plane, and the categories that colour them."""
