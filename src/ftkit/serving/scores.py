"""Log-probabilities of tokens, for evaluations that compare the likelihood of given texts."""

from torch import Tensor

from ftkit.serving.jobs import TokenScore

# The most logits computed at a time for the tokens of prompts (B x T x V): 256 MB in float32.
MAX_LOGITS = 2**26


def token_scores(logits: Tensor, tokens: Tensor, top: int) -> list[TokenScore]:
    """Return the scores of T tokens.

    Args:
        logits: Of the place of each token, (T, V), any floating type.
        tokens: Their ids, int64 (T,), on the same device.
        top: How many of the most likely tokens in each place are named.

    Example:
        >>> import torch
        >>> [score] = token_scores(torch.tensor([[0.25, 0.5, 0.25]]).log(), torch.tensor([0]), top=1)
        >>> [(token, round(value, 4)) for token, value in score.top.items()]
        [(1, -0.6931), (0, -1.3863)]
    """
    logprobs = logits.float().log_softmax(-1)
    own = logprobs.gather(-1, tokens[:, None])[:, 0].tolist()
    best, places = (found.tolist() for found in logprobs.topk(min(top, logits.shape[-1])))
    return [
        TokenScore(token, value, dict(zip(ids, values, strict=True)) | {token: value})
        for token, value, ids, values in zip(tokens.tolist(), own, places, best, strict=True)
    ]
