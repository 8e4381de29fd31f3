"""Serve a tuned model over HTTP: one thread runs the model for all requests, one event loop speaks OpenAI's protocol.

Built on FastAPI and uvicorn. LitServe, Lightning's own server, has a loop for continuous batching, too, but runs models
in processes of its own; with a thread in this process a cancelled request frees its place at the next token, and one
queue and deadline hold for tokenizing and generating.

This package depends on no task: the command gives it a network with its tokenizer, or an object that classifies.
"""
