"""Answers do not depend on who else is answered."""

from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from ftkit.serving.generator import BatchGenerator
from ftkit.serving.jobs import Generation, Piece, Sampling
from ftkit.serving.replies import ApiError

PROMPTS = [[72, 101], [1], [9] * 17, list(range(30, 55)), [5, 200, 7], [65] * 3]


def job(prompt: list[int], max_tokens: int = 12, stream: bool = False, **sampling: Any) -> tuple[Generation, list[Any]]:
    got: list[Any] = []
    return Generation(got.append, prompt, Sampling(max_tokens, **sampling), stream), got


def run(generator: BatchGenerator) -> None:
    while generator.jobs:
        generator.step()


def alone(model: Any, tokenizer: Any, prompt: list[int], max_tokens: int = 12) -> str:
    """What transformers' own generation makes of one prompt."""
    written = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=max_tokens,
        pad_token_id=0,
        eos_token_id=tokenizer.eos_token_id,
    )
    return tokenizer.decode(written[0, len(prompt) :], skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_a_batch_of_unequal_prompts_answers_as_transformers_does_one_by_one(tiny: Any) -> None:
    net, tokenizer = tiny
    generator = BatchGenerator(net, tokenizer, 16)
    jobs = [job(prompt) for prompt in PROMPTS]
    generator.admit([asked for asked, _ in jobs])
    run(generator)
    answers = [got[-1].text for _, got in jobs]
    assert answers == [alone(net, tokenizer, prompt) for prompt in PROMPTS]
    assert len(set(answers)) > 3  # or it would prove little


@pytest.mark.parametrize("first", [2, 3])  # the long one waits, or the longest runs first
def test_who_joins_or_leaves_on_the_way_changes_nothing(tiny: Any, first: int) -> None:
    net, tokenizer = tiny
    generator = BatchGenerator(net, tokenizer, 16)
    lengths = [20, 3, 9, 14, 1, 25]
    jobs = [job(prompt, length) for prompt, length in zip(PROMPTS, lengths, strict=True)]
    generator.admit([asked for asked, _ in jobs[:first]])
    for asked, _ in jobs[first:]:
        generator.step()
        generator.step()
        generator.admit([asked])
    assert generator.jobs
    run(generator)
    for (_, got), prompt, length in zip(jobs, PROMPTS, lengths, strict=True):
        assert got[-1].text == alone(net, tokenizer, prompt, length)
        assert got[-1].tokens <= length


def test_the_cache_forgets_columns_that_only_a_gone_answer_had(tiny: Any) -> None:
    generator = BatchGenerator(*tiny, batch_size=2)
    generator.admit([job([3] * 40, 2)[0], job([3], 9)[0]])
    run_steps = [generator.step() for _ in range(3)]
    assert len(run_steps) == 3
    assert len(generator.jobs) == 1
    assert generator._mask.shape[1] == generator._cache.get_seq_length() == 1 + 3
    assert bool(generator._mask.all())


def test_running_answers_are_known_while_others_join(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = BatchGenerator(*tiny, batch_size=4)
    (first, _), (second, _) = job(PROMPTS[0]), job(PROMPTS[1])
    generator.admit([first])
    known: list[Any] = []
    forward = generator._forward
    monkeypatch.setattr(generator, "_forward", lambda *ids, **how: known.append(generator.jobs) or forward(*ids, **how))
    generator.admit([second])
    assert known == [[first, second]]
    run(generator)
    assert generator.jobs == []


def test_a_cancelled_answer_leaves_and_the_others_go_on(tiny: Any) -> None:
    net, tokenizer = tiny
    generator = BatchGenerator(net, tokenizer, 4)
    (one, _), (two, got) = job(PROMPTS[0], 30), job(PROMPTS[2], 10)
    generator.admit([one, two])
    generator.step()
    one.cancelled = True
    generator.step()
    assert generator.jobs == [two]
    assert generator.room == 3
    run(generator)
    assert got[-1].text == alone(net, tokenizer, PROMPTS[2], 10)


def test_a_stream_says_the_same_in_pieces(tiny: Any) -> None:
    net, tokenizer = tiny
    generator = BatchGenerator(net, tokenizer, 4)
    (whole, at_once), (stream, pieces) = job(PROMPTS[3], 20), job(PROMPTS[3], 20, stream=True)
    generator.admit([whole, stream])
    run(generator)
    assert len(at_once) == 1
    assert len(pieces) > 3
    assert "".join(piece.text for piece in pieces) == at_once[0].text
    assert [piece.finish for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].finish == at_once[0].finish == "length"


def test_the_end_token_ends_an_answer_and_is_not_said(tiny: Any) -> None:
    net, tokenizer = tiny
    generator = BatchGenerator(net, tokenizer, 1)
    said, got = job(PROMPTS[0], 12)
    generator.admit([said])
    run(generator)
    third = net.generate(torch.tensor([PROMPTS[0]]), do_sample=False, max_new_tokens=3, pad_token_id=0)
    generator.end_tokens = frozenset({int(third[0, -1])})
    ended, short = job(PROMPTS[0], 12)
    generator.admit([ended])
    run(generator)
    assert short[-1].finish == "stop"
    assert short[-1].tokens <= 3
    assert got[-1].text.startswith(short[-1].text)


def test_logits_that_are_not_finite_fail_their_own_answer_only(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    net, tokenizer = tiny
    generator = BatchGenerator(net, tokenizer, 4)
    (bad, broken), (good, got) = job(PROMPTS[0], 5), job(PROMPTS[1], 5)
    generator.admit([bad, good])
    real = net.forward

    def spoilt(**inputs: Any) -> Any:
        output = real(**inputs)
        output.logits[0] = float("nan")
        return output

    with monkeypatch.context() as patch:
        patch.setattr(net, "forward", spoilt)
        generator.step()
    run(generator)
    assert isinstance(broken[-1], ApiError)
    assert isinstance(got[-1], Piece)
    assert got[-1].text == alone(net, tokenizer, PROMPTS[1], 5)


def test_a_model_that_sees_a_window_only_runs_in_closed_batches(tiny: Any) -> None:
    """Its cache drops positions, so nobody can join; together they still answer as alone."""
    _, tokenizer = tiny
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=8,
        max_position_embeddings=64,
    )
    net = MistralForCausalLM(config).eval()
    generator = BatchGenerator(net, tokenizer, 8)
    assert generator.room == 8
    jobs = [job(prompt, 10 + index) for index, prompt in enumerate(PROMPTS)]
    generator.admit([asked for asked, _ in jobs])
    assert generator.room == 0
    run(generator)
    assert generator.room == 8
    for index, (_, got) in enumerate(jobs):
        assert got[-1].text == alone(net, tokenizer, PROMPTS[index], 10 + index)
