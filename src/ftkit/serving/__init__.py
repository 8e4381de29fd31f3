"""Serve a tuned model over HTTP: one thread runs the model for all requests, one event loop speaks OpenAI's protocol.

Built on FastAPI and uvicorn. LitServe, Lightning's own server, runs the model in processes of its own; with a thread in
this process a request joins or leaves the running batch at any token, and a cancelled one frees its place at once.

This package depends on no task: the command gives it a network with its tokenizer, or an object that classifies.
"""
