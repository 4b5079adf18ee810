"""Programs that benches run in a process of their own, to see its time and memory."""
