from collections.abc import Sequence

import pytest
import torch

from windfall.lowcomm.compressor import COMPRESSORS
from windfall.lowcomm.layout import digest
from windfall.lowcomm.merge import weighted_mean
from windfall.lowcomm.outer import State
from windfall.lowcomm.rda import radial_directional_mean
from windfall.lowcomm.rule import Rule, Said, Split, Unread
from windfall.lowcomm.sparse import Contribution, Sparse

SPLIT = Split(5000, 30, (1, 4000, 0, 999))
RULES = [
    *(Rule.parse(codec) for codec in COMPRESSORS),
    *(Rule.parse(codec, clip=True) for codec in ("fp32", "topk-ef", "dct-momentum")),
    Rule.parse("fp32", "average"),
    Rule.parse("int4-block", "delayed-nesterov:arrivals=2"),
    Rule.parse("int8-block", "nesterov", True, "rda"),
]
by_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: "-".join(map(str, rule.settings)))


def vector(seed: int, scale: float = 1.0, split: Split = SPLIT) -> torch.Tensor:
    return torch.randn(split.elements, generator=torch.Generator().manual_seed(seed)) * scale


def message(rule: Rule, gradient: torch.Tensor, split: Split = SPLIT, tokens: int = 100) -> bytes:
    return rule.encode(rule.codec.init(split.trained), gradient, split, base=7, tokens=tokens, steps=5)[1]


def said(rule: Rule, count: int = 3, split: Split = SPLIT) -> list[Said]:
    found = []
    for seed in range(count):
        headers, parts = rule.decode(message(rule, vector(seed, 1 + seed, split), split, 100 + seed), split)
        assert [(one.base, one.tokens, one.steps) for one in headers] == [(7, 100 + seed, 5)] * len(split.parts)
        found.append(Said(f"site-{seed}", 1, 100 + seed, parts))
    return found


def step(rule: Rule, contributions: Sequence[Said], split: Split = SPLIT) -> tuple[State, torch.Tensor]:
    return rule.step(rule.init(split), vector(99, split=split), rule.merge(contributions, split), split)


def dense(contribution: Contribution) -> torch.Tensor:
    return contribution.dense() if isinstance(contribution, Sparse) else contribution


@by_rule
def test_the_order_of_arrival_changes_no_bit(rule: Rule) -> None:
    contributions = said(rule)
    state, model = step(rule, contributions)
    again = step(rule, [contributions[2], contributions[0], contributions[1]])
    assert digest(model) == digest(again[1])
    assert [digest(each) for each in state] == [digest(each) for each in again[0]]


@by_rule
def test_messages_merge_to_the_same_bits_unread(rule: Rule) -> None:
    read = said(rule)
    unread = [
        Said(one.site, 1, one.tokens, Unread(rule, message(rule, vector(seed, 1 + seed), tokens=100 + seed), SPLIT))
        for seed, one in enumerate(read)
    ]
    assert digest(step(rule, unread)[1]) == digest(step(rule, read)[1])
    assert len(unread[0].parts) == len(unread[0].parts[:]) == 2


@by_rule
def test_a_step_changes_none_of_its_arguments(rule: Rule) -> None:
    contributions = said(rule)
    merged = rule.merge(contributions, SPLIT)
    state, base = rule.init(SPLIT), vector(99)
    before = [digest(each) for each in (*state, base, *map(dense, merged))]
    rule.step(state, base, merged, SPLIT)
    assert [digest(each) for each in (*state, base, *map(dense, merged))] == before
    rule.merge(contributions, SPLIT)
    assert [digest(dense(each)) for each in rule.merge(contributions, SPLIT)] == before[len(state) + 1 :]


@by_rule
def test_settings_build_the_rule_again(rule: Rule) -> None:
    other = Rule.parse(*rule.settings)
    assert other.settings == rule.settings
    assert digest(step(other, said(rule))[1]) == digest(step(rule, said(rule))[1])


@by_rule
def test_the_exact_part_is_averaged_as_it_is_whatever_the_rule(rule: Rule) -> None:
    exact = slice(SPLIT.trained, None)
    expected = weighted_mean([vector(seed, 1 + seed)[exact] for seed in range(3)], [100, 101, 102])
    assert torch.equal(step(rule, said(rule))[1][exact], vector(99)[exact] - expected)


@by_rule
@pytest.mark.parametrize("split", [Split(0, 0), Split(0, 5), Split(1), Split(1, 1), Split(4097)], ids=str)
def test_a_model_of_any_size_takes_a_step(rule: Rule, split: Split) -> None:
    state, model = step(rule, said(rule, split=split), split)
    assert model.shape == (split.elements,) and bool(model.isfinite().all())
    assert tuple(map(len, state)) == rule.outer.sizes(split.trained)


@by_rule
def test_most_bytes_are_more_than_any_message_has(rule: Rule) -> None:
    for split in (Split(1), Split(1, 1), Split(257), SPLIT):
        assert len(message(rule, vector(0, split=split), split)) <= rule.most_bytes(split)


def test_a_message_of_another_codec_or_model_is_refused() -> None:
    fp32, topk = Rule.parse("fp32"), Rule.parse("topk-ef")
    with pytest.raises(ValueError, match="part 0 is topk-ef of 5000 elements as fragment 0, not fp32 of 5000"):
        fp32.decode(message(topk, vector(0)), SPLIT)
    with pytest.raises(ValueError, match="at most 4999 elements, not 5000"):
        fp32.decode(message(fp32, vector(0)), Split(4999, 31))
    with pytest.raises(ValueError, match="part 1 is fp32 of 30 elements as fragment 1, not fp32 of 31"):
        fp32.decode(message(fp32, vector(0)), Split(5000, 31))
    with pytest.raises(ValueError, match="168 bytes follow the last part"):
        fp32.decode(message(fp32, vector(0)), Split(5000))
    with pytest.raises(ValueError, match="at least 48 bytes, not 0"):
        fp32.decode(message(fp32, vector(0)[:5000], Split(5000)), SPLIT)


def test_what_was_said_under_the_rule_before_still_counts() -> None:
    topk, fp32 = Rule.parse("topk-ef"), Rule.parse("fp32")
    old, new = said(topk)[0], said(fp32)[1]
    for rule in (topk, fp32):
        merged = rule.merge([old, new], SPLIT)
        expected = weighted_mean([dense(old.parts[0]), dense(new.parts[0])], [100, 101])
        assert torch.equal(dense(merged[0]), expected)


def test_radial_averaging_looks_at_each_tensor_alone() -> None:
    rule = Rule.parse("fp32", "average", merge="rda")
    merged = rule.merge(said(rule), SPLIT)
    chunks = [vector(seed, 1 + seed)[: SPLIT.trained] for seed in range(3)]
    spans = [slice(0, 1), slice(1, 4001), slice(4001, 5000)]
    expected = radial_directional_mean(chunks, [100, 101, 102], spans)
    assert torch.equal(dense(merged[0]), expected)
    norms = torch.stack([chunk[spans[1]].norm() for chunk in chunks])
    radius = (norms * torch.tensor([100.0, 101, 102])).sum() / 303
    torch.testing.assert_close(expected[spans[1]].norm(), radius)


def test_one_site_alone_keeps_its_length_and_direction() -> None:
    rule = Rule.parse("fp32", "average", merge="rda")
    merged = rule.merge(said(rule, 1), SPLIT)
    torch.testing.assert_close(dense(merged[0]), vector(0)[: SPLIT.trained])


def test_clipping_takes_the_median_norm() -> None:
    rule = Rule.parse("fp32", "average", clip=True)
    merged = rule.merge(said(rule), SPLIT)
    a, b, c = (vector(seed, 1 + seed)[:5000] for seed in range(3))
    torch.testing.assert_close(dense(merged[0]), (100 * a + 101 * b + 102 * c * (b.norm() / c.norm())) / 303)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (("gzip",), "unknown compressor 'gzip'"),
        (("fp32", "adam"), "unknown outer optimizer 'adam'"),
        (
            ("fp32", "", False, "mode"),
            "unknown merge 'mode'; known are krum, mean, median, multi-krum, rda, trimmed-mean",
        ),
        (("fp32", "", False, "trimmed-mean:share=0.5"), "at least 0 and below 0.5, not 0.5"),
        (("fp32", "", False, "krum:byzantine=0.5"), "byzantine is a whole number of sites from 0 to 65536, not 0.5"),
        (("fp32", "", False, "median:share=0.1"), "setting 'share' is unknown"),
        (("topk-ef", "nesterov"), "topk-ef goes with the outer optimizer 'average', not with 'nesterov'"),
        (("topk-ef", "delayed-nesterov"), "not with 'delayed-nesterov': momentum harms it"),
        (("dct-momentum", "", False, "rda"), "dct-momentum goes with the merge 'mean', not with 'rda'"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused(settings: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Rule.parse(*settings)  # type: ignore[arg-type]


def test_the_outer_optimizer_that_is_left_out_goes_with_the_codec() -> None:
    assert Rule.parse("topk-ef").outer.name == "average"
    assert Rule.parse("fp32").outer.name == "nesterov"


def test_only_elementwise_rules_may_be_taken_run_by_run() -> None:
    assert Rule.parse("bf16").elementwise and Rule.parse("fp32", clip=True, merge="krum").elementwise
    assert not any(rule.elementwise for rule in (Rule.parse("fp32", merge="rda"), Rule.parse("int8-block")))


@by_rule
def test_no_contribution_is_no_round(rule: Rule) -> None:
    with pytest.raises(ValueError, match="at least one"):
        rule.merge([], SPLIT)
