"""Plan trainings: seconds, memory and price on a device that need not be there."""
