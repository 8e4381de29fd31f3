"""The floor under the wings: what runs, records, keeps and resumes a training."""
