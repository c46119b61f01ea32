"""Files and folders: walking, atomic writing, CSV, paths as people note them."""
