"""Any model state that torch can hold, once around: site, message, coordinator, and back as a state."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from windfall.lowcomm.compressor import COMPRESSORS
from windfall.lowcomm.dct import inverse_dct
from windfall.lowcomm.layout import FLOATS, INTEGERS, Layout, flatten, layout_of, restore
from windfall.lowcomm.rule import Rule, Said
from windfall.lowcomm.sparse import Sparse

CODECS = [*COMPRESSORS, "topk-ef:chunk=100,keep=7", "topk-ef:levels=1,decay=1"]
by_codec = pytest.mark.parametrize("codec", CODECS)

shapes = st.sampled_from([(), (1,), (0,), (0, 3), (1, 1, 1), (3,), (7, 5), (257,), (3, 1, 11), (64,), (41, 103)])
tensors = st.tuples(st.sampled_from(FLOATS + INTEGERS), shapes, st.booleans(), st.booleans())
specs = st.lists(tensors, max_size=7)


@dataclass(frozen=True)
class Model:
    """Two states of one model: what the coordinator has, and what a site made of it."""

    layout: Layout
    base: dict[str, Tensor]
    local: dict[str, Tensor]

    @property
    def gradient(self) -> Tensor:
        return flatten(self.base, self.layout) - flatten(self.local, self.layout)


def models(coarse: bool) -> st.SearchStrategy[Model]:
    """``coarse`` floats are multiples of 1/8 below 16: every dtype has them, and their differences are exact."""

    def build(drawn: list[tuple[str, tuple[int, ...], bool, bool]], seed: int) -> Model:
        generator = torch.Generator().manual_seed(seed)
        states: list[dict[str, Tensor]] = [{}, {}]
        for state in states:
            for index, (dtype, shape, buffer, tied) in enumerate(drawn):
                kind = getattr(torch, dtype)
                if dtype in INTEGERS:
                    low, high = (0, 2) if dtype == "bool" else _range(kind)
                    value = torch.randint(low, high, shape, generator=generator).to(kind)
                else:
                    value = torch.randint(-127, 128, shape, generator=generator).to(kind) / 8
                    if not coarse and not buffer:
                        value = torch.randn(shape, generator=generator).to(kind)
                state[f"t{index}"] = value
                if tied:
                    state[f"t{index}.again"] = value
        exact = {f"t{index}{end}" for index, each in enumerate(drawn) if each[2] for end in ("", ".again")}
        return Model(layout_of(states[0], exact), *states)

    return st.builds(build, specs, st.integers(0, 2**31))


def _range(kind: torch.dtype) -> tuple[int, int]:
    """fp32 counts any difference of two such integers."""
    info = torch.iinfo(kind)
    return max(info.min, -(2**23)), min(info.max + 1, 2**23)


def around(rule: Rule, model: Model) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """What the only site keeps back, what it sent of the trained part, and the flat model after the round."""
    split = model.layout.split
    base = flatten(model.base, model.layout)
    kept, message = rule.encode(rule.codec.init(split.trained), model.gradient, split, base=0, tokens=9, steps=3)
    assert len(message) <= rule.most_bytes(split)
    _, parts = rule.decode(message, split)
    merged = rule.merge([Said("a", 1, 9, parts)], split)
    sent = merged[0] if split.trained else torch.empty(0)
    return kept, sent.dense() if isinstance(sent, Sparse) else sent, rule.step(rule.init(split), base, merged, split)[1]


@settings(deadline=None, max_examples=150)
@given(model=models(coarse=True))
def test_one_site_gets_its_state_back(model: Model) -> None:
    _, _, flat = around(Rule.parse("fp32", "average"), model)
    back = restore(flat, model.layout)
    assert set(back) == set(model.local)
    for name, tensor in model.local.items():
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], tensor), name
    for name, owner in model.layout.tied:
        assert back[name].data_ptr() == back[owner].data_ptr()


@by_codec
@settings(deadline=None, max_examples=50)
@given(model=models(coarse=False))
def test_integers_and_buffers_arrive_as_they_are_and_floats_within_the_codecs_error(codec: str, model: Model) -> None:
    rule, layout = Rule.parse(codec, "average"), model.layout
    kept, sent, flat = around(rule, model)
    back = restore(flat, layout)
    for spec in layout.tensors:
        if spec.exact:
            assert torch.equal(back[spec.name], model.local[spec.name]), spec
        assert back[spec.name].dtype == model.local[spec.name].dtype

    trained = slice(0, layout.split.trained)
    gradient = model.gradient[trained]
    assert torch.equal(flat[trained], flatten(model.base, layout)[trained] - sent)
    error = (sent.double() + unsaid(rule, kept).double() - gradient.double()).abs()
    assert bool((error <= allowed(rule.codec.name, gradient)).all())


def unsaid(rule: Rule, kept: tuple[Tensor, ...]) -> Tensor:
    """What error feedback holds back, in the basis of the model."""
    if not kept:
        return torch.zeros(())
    if rule.codec.name == "dct-momentum":
        return torch.from_numpy(inverse_dct(np.ascontiguousarray(kept[0].numpy())))
    return kept[0]


def allowed(codec: str, gradient: Tensor) -> Tensor:
    """The documented error of every element."""
    size = gradient.double().abs()
    largest = float(size.max()) if len(size) else 0.0
    if codec in ("fp32", "bf16"):
        return size * (0 if codec == "fp32" else 2.0**-8)
    if codec.endswith("-block"):
        codes = {"int8-block": 127, "int4-block": 7}[codec]
        blocks = [
            torch.full_like(block, 0.5001 * float(block.max()) / codes)
            for block in torch.split(size, 256)
            if len(block)
        ]
        return torch.cat([torch.empty(0, dtype=torch.float64), *blocks]) + 2.0**-100
    return torch.full_like(size, 2e-5 * largest)


@pytest.mark.parametrize("codec", ["q2-ef", "topk-ef:decay=1", "topk-ef:decay=1,levels=1", "dct-momentum:momentum=1"])
@settings(deadline=None, max_examples=25)
@given(model=models(coarse=False), rounds=st.integers(1, 5))
def test_what_was_sent_and_what_is_kept_add_up_over_rounds(codec: str, model: Model, rounds: int) -> None:
    rule, split, gradient = Rule.parse(codec, "average"), model.layout.split, model.gradient
    if not split.trained:
        return
    kept, total = rule.codec.init(split.trained), torch.zeros(split.trained, dtype=torch.float64)
    for number in range(rounds):
        kept, message = rule.encode(kept, gradient, split, base=number, tokens=9, steps=3)
        part = rule.decode(message, split)[1][0]
        total += part.dense() if isinstance(part, Sparse) else part
    given_ = gradient[: split.trained].double() * rounds
    error = (total + unsaid(rule, kept).double() - given_).abs()
    assert bool((error <= 1e-4 * rounds * max(1.0, float(given_.abs().max()))).all())


@by_codec
@settings(deadline=None, max_examples=25)
@given(model=models(coarse=False), at=st.integers(0, 2**31), bad=st.sampled_from([float("nan"), float("inf"), -1e30]))
def test_a_gradient_that_is_not_finite_is_refused_and_the_state_still_stands(
    codec: str, model: Model, at: int, bad: float
) -> None:
    rule, split, gradient = Rule.parse(codec), model.layout.split, model.gradient
    if not split.elements:
        return
    kept, _ = rule.encode(rule.codec.init(split.trained), gradient, split, base=0, tokens=9, steps=3)
    before = [vector.clone() for vector in kept]
    poisoned = gradient.clone()
    poisoned[at % split.elements] = bad
    expected = rule.encode(kept, gradient, split, base=1, tokens=9, steps=3)[1]
    with pytest.raises(ValueError, match="NaN, infinite or absurdly large"):
        rule.encode(kept, poisoned, split, base=1, tokens=9, steps=3)
    assert all(torch.equal(a, b) for a, b in zip(kept, before, strict=True))
    assert rule.encode(kept, gradient, split, base=1, tokens=9, steps=3)[1] == expected
