"""How an outcome is stored whatever happens: tried again, replaced by what stands for it, or kept on the disk."""
