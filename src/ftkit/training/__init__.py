"""Run, record, save and resume a training, whatever the task."""
