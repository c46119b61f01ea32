"""The method, in the paper's terms: loss, memory, network, views and their augmentation, schedules."""
