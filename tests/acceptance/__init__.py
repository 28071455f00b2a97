"""Real workers, in processes of their own, on real databases: what a user of the package does and sees."""
