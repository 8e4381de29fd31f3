"""A tuned model behind HTTP: one thread runs the model for all requests, one event loop speaks OpenAI's protocol.

Built on FastAPI and uvicorn. LitServe, Lightning's own server, was the alternative; what decided against it: it runs
the model in processes of its own and hands requests over whole, so it cannot drop a cancelled request from a running
batch or let a new one join; it listens on all addresses by default, puts no limit on a body, and compares its API key
with ``!=``; and its OpenAI endpoints stand on FastAPI, too.

Nothing here knows a task: the command hands over a network with its tokenizer, or an object that classifies.
"""
