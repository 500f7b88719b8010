"""The learning rate of a run, by a line search on a few records: the algorithm of `loram train` with `learning_rate: auto`."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftModel

from . import _loram
from ._branch import StartBranch
from ._layers import Layer, adapter_of, check, device_sums, is_plain_linear, layers, unwrap
from ._state import BRANCH, CHANGED, starts

#: The best peak rate of a run over the rate of the best single step.
FACTOR = 1.4
#: The largest share of the weights' norm that a first step may move.
LARGEST = 0.06
#: Step size of the first rung.
FIRST = 2e-3
#: Records of the gradient and of the losses, in batches and at most, and the fewest where the data have them.
LEARN, JUDGE, FEWEST = (4, 64), (2, 32), 16
#: Rungs in a decade, and the furthest rung from the first one.
PER_DECADE, FURTHEST = 3.0, 15


@dataclass(frozen=True)
class FoundRate:
    """A learning rate and the line search that found it."""

    #: Peak learning rate.
    learning_rate: float
    #: Share of the weights' norm that the first step moves at that rate; None with SGD.
    step_size: float | None
    #: Learning rate of the best single step of LoRAM's adapters; None where no step lowers the loss.
    optimum: float | None
    #: Loss without a step.
    before: float
    #: Learning rates that were tried, ascending, and the loss after one step at each (inf where it is not finite).
    rungs: list[tuple[float, float]] = field(repr=False)

    def __float__(self) -> float:
        return self.learning_rate


def find_learning_rate(
    peft_model: Any,
    dataset: Sequence[Mapping[str, Any]],
    *,
    optimizer: str = "adamw",
    batch_size: int = 8,
    lora_plus_ratio: float = 1.0,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    max_grad_norm: float = 1.0,
    data_collator: Callable[[list[Any]], Mapping[str, torch.Tensor]] | None = None,
    seed: int = 42,
    adapter_name: str | None = None,
) -> FoundRate:
    """Finds the peak learning rate for training an adapter on a tokenised dataset; the model is as before when it returns.

    One gradient on some records, then one step of the optimiser at each rate of a ladder, a third of a decade apart, and the
    loss on other records after it. The steps are those of LoRAM's initial factors, whatever the adapter's own are; the rate
    is the one at which the adapter's own first steps move the weights as far. Fully trained modules take the same steps: train a
    classifier's new head alone for a few steps before, as the program does. Call it after `loram.initialize`, if that is
    called, and before training.

    Args:
        peft_model: what `get_peft_model` gave, untrained.
        dataset: tokenised records, as a trainer takes them: mappings with `input_ids`, and optionally `labels`,
            `attention_mask`, and TRL's `completion_mask` or `assistant_masks`. Without `labels` they are the `input_ids`.
            At most 96 records are read, by index.
        optimizer: `adamw` or `sgd`.
        batch_size: records of an optimiser step (with accumulation, those of all its batches).
        lora_plus_ratio: LoRA+'s ratio of B's learning rate to A's.
        weight_decay: of the run.
        momentum: of `sgd`.
        max_grad_norm: the run's clipping, which steps of SGD depend on; 0 for none.
        data_collator: makes a batch of a list of records; by default they are padded on the right, which needs `input_ids`.
        seed: chooses the records.
        adapter_name: the active adapter by default.

    Returns:
        The rate (`float(found)` or `found.learning_rate`) and the losses of the search.

    Raises:
        ValueError: an empty dataset, a record without `input_ids`, an unknown optimiser, a loss that is not finite before the
            first step, or a layer that cannot be initialised, by name.
    """
    if optimizer not in ("adamw", "sgd"):
        raise ValueError(f"optimizer: expected adamw or sgd, found `{optimizer}`")
    if batch_size < 1:
        raise ValueError(f"batch_size: expected 1 or more, found {batch_size}")
    if len(dataset) == 0:
        raise ValueError("dataset: expected at least one record, found none")
    model = unwrap(peft_model)
    adapter = adapter_of(model, adapter_name)
    found = layers(model, adapter)
    for layer in found:
        check(layer)
    collate = data_collator or (lambda records: _collate(records, _pad_token(model)))
    ratios = (1.0, lora_plus_ratio)
    norms = [_norm(model, layer) for layer in found]
    own = _Sizes([_terms(layer, norm, layer.a, layer.b, ratios, optimizer) for layer, norm in zip(found, norms)])
    learn, judge = _records(len(dataset), batch_size, seed)
    with _evaluating(model), _loram_factors(model, adapter, found, norms):
        search = _Search(model, dataset, collate, batch_size, optimizer, ratios, weight_decay, momentum)
        sizes = _Sizes([_terms(layer, norm, layer.a, layer.b, ratios, optimizer) for layer, norm in zip(found, norms)])
        search.gradient(learn, max_grad_norm)
        before = search.loss(judge)
        if not math.isfinite(before):
            raise ValueError(f"the loss is {before} before the first step: check the model, its dtype and the dataset")
        first = sizes.rate(FIRST) if optimizer == "adamw" else search.first()
        rungs = climb(first, before, lambda rate: search.loss_after(rate, judge))
    best = optimum(rungs, before)
    safe = [rate for rate, loss in rungs if loss < before]
    rate = first if best is None else FACTOR * best
    rate = min(rate, max(safe)) if safe else rate
    rate = min(rate, sizes.rate(LARGEST)) if optimizer == "adamw" else rate * (1.0 - momentum)
    size = sizes.at(rate)
    return FoundRate(own.rate(size), size if optimizer == "adamw" else None, best, before, rungs)


def climb(first: float, before: float, loss: Callable[[float], float]) -> list[tuple[float, float]]:
    """Rungs (rate, loss), ascending: up from `first` until the loss has risen twice in a row, and down from it where it is the
    best so far."""

    def at(k: int) -> tuple[float, float]:
        rate = first * 10.0 ** (k / PER_DECADE)
        found = loss(rate)
        return rate, found if math.isfinite(found) else math.inf

    rungs, rises = [at(0)], 0
    for k in range(1, FURTHEST + 1):
        rungs.append(at(k))
        rises = rises + 1 if rungs[-1][1] >= rungs[-2][1] else 0
        if rises == 2:
            break
    for k in range(1, FURTHEST + 1):
        best = _best(rungs, before)
        if best is not None and best > 0:
            break
        rungs.insert(0, at(-k))
    return rungs


def _best(rungs: Sequence[tuple[float, float]], before: float) -> int | None:
    """The rung of the lowest loss, if that is below the loss without a step."""
    best = min(range(len(rungs)), key=lambda i: rungs[i][1])
    return best if rungs[best][1] < before else None


def optimum(rungs: Sequence[tuple[float, float]], before: float) -> float | None:
    """The rate of the lowest loss: the vertex of the parabola in ln η through the lowest rung and its neighbours."""
    best = _best(rungs, before)
    if best is None:
        return None
    rate, lowest = rungs[best]
    if best in (0, len(rungs) - 1):
        return rate
    left, right = rungs[best - 1][1] - lowest, rungs[best + 1][1] - lowest
    shift = 0.5 * (left - right) / (left + right) if math.isfinite(left + right) and left + right > 0 else 0.0
    return rate * 10.0 ** (shift / PER_DECADE)


class _Sizes:
    """D(η) = exp(mean_l ln(L_l·η + q_l·η²)): the share of the weights' norm that a run's first steps move."""

    def __init__(self, terms: list[tuple[float, float]]):
        self.terms = [t for t in terms if math.isfinite(sum(t)) and sum(t) > 0]
        if not self.terms:
            raise ValueError("no layer of the adapter moves in a first step")

    def at(self, rate: float) -> float:
        return math.exp(sum(math.log(first * rate + second * rate * rate) for first, second in self.terms) / len(self.terms))

    def rate(self, size: float) -> float:
        low = high = 1e-6
        while self.at(high) < size:
            high *= 4.0
        while self.at(low) > size:
            low /= 4.0
        for _ in range(100):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if self.at(middle) < size else (low, middle)
        return math.sqrt(low * high)


def _terms(
    layer: Layer, norm: float, a: torch.Tensor, b: torch.Tensor, ratios: tuple[float, float], optimizer: str
) -> tuple[float, float]:
    k_a = ratios[0] if a.requires_grad else 0.0
    k_b = ratios[1] if b.requires_grad else 0.0
    r, s, entries = layer.r, abs(layer.scaling), layer.n * layer.m
    if norm == 0:
        return 0.0, 0.0
    a, b = a.detach().double(), b.detach().double()
    if optimizer == "sgd":
        # s⁴·k₁ of each part, for a gradient of second moment 1: two runs on one model compare by it
        of_a, of_b = (a @ a.T).square().sum().item() / layer.m, (b.T @ b).square().sum().item() / layer.n
        return s * s * math.sqrt((k_b**2 * of_a + k_a**2 * of_b) * entries) / norm, 0.0
    nu_a, nu_b = a.square().mean().item(), b.square().mean().item()
    first = s * math.sqrt(entries * r * (k_b**2 * nu_a + k_a**2 * nu_b)) / norm
    return first, s * r * k_a * k_b * math.sqrt(entries) / norm


def _norm(model: PeftModel, layer: Layer) -> float:
    """‖W‖_F of the untouched base."""
    start = starts(model).get(layer.adapter)
    if start is not None and layer.path in start.layers:
        return math.sqrt(start.layers[layer.path].weight_squares)
    return math.sqrt(device_sums(layer.weight())[1])


@contextmanager
def _evaluating(model: PeftModel) -> Iterator[None]:
    """Without dropout, and with the gradients that were there before."""
    training = [(m, m.training) for m in model.modules()]
    grads = {p: p.grad for p in model.parameters() if p.requires_grad}
    model.eval()
    try:
        for p in grads:
            p.grad = None
        yield
    finally:
        for p, grad in grads.items():
            p.grad = grad
        for module, mode in training:
            module.training = mode


@contextmanager
def _loram_factors(model: PeftModel, adapter: str, found: list[Layer], norms: list[float]) -> Iterator[None]:
    """LoRAM's initial factors in the adapter, and their product taken out by a frozen branch, so that the output is that of the
    base. An adapter that LoRAM initialised has them already."""
    start = starts(model).get(adapter)
    if start is not None and start.scheme.name == "loram":
        yield
        return
    odd = next((layer for layer in found if not is_plain_linear(layer.module)), None)
    if odd is not None:
        raise ValueError(f"layer `{odd.path}`: PEFT's {type(odd.module).__name__} has no place for a frozen branch")
    scheme = _loram.Scheme("loram", "{}")
    kept: list[tuple[Layer, torch.Tensor, torch.Tensor, Any]] = []
    try:
        for layer, norm in zip(found, norms):
            module = layer.module
            branch = getattr(module, "loram_starts", {})
            before = branch[adapter] if adapter in branch else None
            a, b = layer.a.detach().clone(), layer.b.detach().clone()
            made = scheme.start_from_sums(
                layer.path, (0.0, norm**2), layer.n, layer.m, layer.r, float(module.lora_alpha[adapter]), layer.scaling, 0
            )
            kept.append((layer, a, b, before))
            with torch.no_grad():
                layer.a.copy_(torch.from_numpy(made["a"]))
                layer.b.copy_(torch.from_numpy(made["b"]))
            out_a, out_b = layer.a.detach().clone(), layer.b.detach().clone()
            if start is not None and start.mode == CHANGED:
                # the base lacks s·B₀A₀ of its own initialisation
                a0, b0 = start.layers[layer.path].factors_on(a.device)
                out_a, out_b = torch.cat([out_a, a0.to(a.dtype)]), torch.cat([out_b, -b0.to(b.dtype)], dim=1)
            StartBranch.detach(module, adapter)
            StartBranch.attach(module, adapter, out_a, out_b)
        yield
    finally:
        for layer, a, b, before in kept:
            StartBranch.detach(layer.module, adapter)
            with torch.no_grad():
                layer.a.copy_(a)
                layer.b.copy_(b)
            if before is not None and start is not None and start.mode == BRANCH:
                StartBranch.attach(layer.module, adapter, before.a, before.b)
            elif len(getattr(layer.module, "loram_starts", [0])) == 0:
                del layer.module.loram_starts


class _Search:
    """Gradients, steps and losses on records of a dataset."""

    def __init__(self, model, dataset, collate, batch_size, optimizer, ratios, weight_decay, momentum):
        self.model, self.dataset, self.collate, self.batch_size = model, dataset, collate, batch_size
        self.optimizer, self.ratios = optimizer, ratios
        self.weight_decay, self.momentum = weight_decay, momentum
        self.named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self.params = [p for _, p in self.named]
        self.values = [p.detach().clone() for p in self.params]
        self.device = self.params[0].device

    def gradient(self, records: list[int], max_grad_norm: float) -> None:
        """The gradient of the records' mean loss, clipped as the run would."""
        batches = list(self._batches(records))
        total = sum(count for _, count in batches)
        for batch, count in batches:
            (self.model(**batch).loss * (count / total)).backward()
        if max_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(self.params, max_grad_norm)

    def first(self) -> float:
        """The first rate of SGD, whose steps depend on the size of the gradient."""
        value = math.sqrt(sum(p.detach().double().square().sum().item() for p in self.params))
        grad = math.sqrt(sum(p.grad.double().square().sum().item() for p in self.params if p.grad is not None))
        return FIRST * value / grad if grad > 0 and value > 0 else 1e-4

    def loss_after(self, rate: float, records: list[int]) -> float:
        """The loss after one step; the parameters are then as before."""
        groups = [
            {"params": [p], "lr": rate * (self.ratios[1] if "lora_B" in name else self.ratios[0]),
             "weight_decay": self.weight_decay if p.dim() > 1 else 0.0}
            for name, p in self.named
        ]  # fmt: skip
        if self.optimizer == "adamw":
            torch.optim.AdamW(groups).step()
        else:
            torch.optim.SGD(groups, momentum=self.momentum).step()
        try:
            return self.loss(records)
        finally:
            with torch.no_grad():
                for p, value in zip(self.params, self.values):
                    p.copy_(value)

    @torch.no_grad()
    def loss(self, records: list[int]) -> float:
        total, units = 0.0, 0
        for batch, count in self._batches(records):
            total += self.model(**batch).loss.item() * count
            units += count
        return total / max(units, 1)

    def _batches(self, records: list[int]) -> Iterator[tuple[dict[str, torch.Tensor], int]]:
        for at in range(0, len(records), self.batch_size):
            batch = self.collate([self.dataset[i] for i in records[at : at + self.batch_size]])
            batch = {k: v.to(self.device) for k, v in batch.items()}
            labels = batch["labels"]
            # the loss of a language model is over the next tokens
            count = int((labels[:, 1:] != -100).sum()) if labels.dim() == 2 else labels.shape[0]
            if count:
                yield batch, count


def _records(size: int, batch_size: int, seed: int) -> tuple[list[int], list[int]]:
    """Records for the gradient and, apart from them, for the losses."""

    def wanted(steps: int, most: int) -> int:
        return min(max(batch_size * steps, FEWEST), most)

    judge = min(wanted(*JUDGE), size // 3)
    learn = min(wanted(*LEARN), size - judge)
    order = list(range(size))
    random.Random(seed).shuffle(order)
    first = order[:learn]
    return first, order[learn : learn + judge] if judge else first


def _pad_token(model: PeftModel) -> int:
    config = getattr(model, "config", None)
    found = getattr(config, "pad_token_id", None)
    return found if isinstance(found, int) and found >= 0 else 0


def _collate(records: list[Mapping[str, Any]], pad: int) -> dict[str, torch.Tensor]:
    """A batch of records, padded on the right; padding does not count in the loss."""
    rows = []
    for record in records:
        if "input_ids" not in record:
            raise ValueError(f"dataset: expected tokenised records with `input_ids`, found {', '.join(record) or 'nothing'}")
        ids = _ints(record["input_ids"])
        labels = record.get("labels")
        labels = list(ids) if labels is None else labels if isinstance(labels, (int, float)) else _ints(labels)
        for name in ("completion_mask", "assistant_masks"):
            if isinstance(labels, list) and record.get(name) is not None:
                labels = [x if keep else -100 for x, keep in zip(labels, _ints(record[name]))]
        mask = record.get("attention_mask")
        rows.append((ids, labels, [1] * len(ids) if mask is None else _ints(mask)))
    longest = max(len(ids) for ids, _, _ in rows)

    def padded(values: list[int], filler: int) -> list[int]:
        return values + [filler] * (longest - len(values))

    labels = [padded(x, -100) if isinstance(x, list) else x for _, x, _ in rows]
    return {
        "input_ids": torch.tensor([padded(ids, pad) for ids, _, _ in rows]),
        "attention_mask": torch.tensor([padded(mask, 0) for _, _, mask in rows]),
        "labels": torch.tensor(labels),
    }


def _ints(values: Any) -> list[int]:
    return values.tolist() if hasattr(values, "tolist") else list(values)
