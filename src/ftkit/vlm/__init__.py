"""Models that read pictures and answer in words: supervised tuning, preferences, and the yes/no workflow."""
