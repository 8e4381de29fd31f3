"""ftkit: which way of fine-tuning is worth it, and can the answer be trusted?"""
