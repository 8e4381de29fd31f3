"""What runs, records, saves and resumes a training, whatever the task."""
