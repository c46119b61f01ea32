"""The ground floor of all rooms: errors, disks that refuse, the machine, memory; `files` and `images`. Loads no
torch.
"""
