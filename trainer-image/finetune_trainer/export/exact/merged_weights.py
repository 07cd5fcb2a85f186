"""Proves that every weight of a merged model is W + s B A, rounded once to F16.

The sum is computed again, in 64 bit. Adapter and model are read with safetensors' own reader, and the scale is PEFT's
formula; only weights in 4 bit are decoded as the merge does. A merged weight may differ from the sum by half a step of
F16, which is what rounding to the nearest takes, and by the rounding of a sum in 32 bit.
"""

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from finetune_trainer.export.merge import pieces
from finetune_trainer.export.rejected_file import RejectedFile
from finetune_trainer.model.adapter import CONFIG, WEIGHTS
from finetune_trainer.model.base_weights import BaseWeights, Loading
from finetune_trainer.model.tensor_files import Weights, weight_files
from finetune_trainer.runtime.cpus import cpus, one_thread_per_cpu

# Of F16: bits of the fraction, and the exponent of the smallest normal number.
_FRACTION_BITS, _SMALLEST_EXPONENT = 10, -14
# Half a step of 32 bit, relative to the number.
_ROUNDING_32 = 2.0**-24

# Returns the weights `start` to `stop` of a flat weight.
_Read = Callable[[int, int], Any]


def check(
    model: Path, adapter_folder: Path, merged: Path, loaded: Loading | None, advance: Callable[[int], None]
) -> None:
    """Check the merged model, on all CPUs.

    Args:
        model: the folder of the weights that the adapter was merged into.
        adapter_folder: what was trained.
        merged: the folder to check.
        loaded: as in `merge.merge`.
        advance: is called with the percentage of weights done.

    Raises:
        RejectedFile: a weight is not what it must be; the message names it.
    """
    files = weight_files(model)
    with (
        BaseWeights(files, loaded) as decoded,
        _stored(files) as stored,
        Weights(weight_files(merged)) as written,
        one_thread_per_cpu() as threads,
    ):
        if {name: t.shape for name, t in written.tensors.items()} != decoded.shapes:
            raise RejectedFile("the merged model has other weights than the model that was trained")
        learned = _factors(adapter_folder)
        if unknown := learned.keys() - decoded.shapes.keys():
            raise RejectedFile(f"the adapter changes {min(unknown)}, which is not in the merged model")
        in_4bit = decoded.stored_in_4bit().keys()
        proof = _Proof(written, threads, advance)
        for name, shape in decoded.shapes.items():
            if loaded is None and name not in in_4bit:
                proof.run(name, shape, 1, _reader(stored[name], shape), learned.get(name))
            else:
                weight = decoded.open(name, threads)
                proof.run(name, shape, weight.unit, weight.piece, learned.get(name))


@contextlib.contextmanager
def _stored(files: list[Path]) -> Iterator[dict[str, Any]]:
    """Yield the tensors of the files, to be cut by rows."""
    from safetensors import safe_open

    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(safe_open(path, framework="pt")) for path in files]
        yield {name: file.get_slice(name) for file in opened for name in file.keys()}  # noqa: SIM118 - not a dict


def _reader(tensor: Any, shape: tuple[int, ...]) -> _Read:
    columns = math.prod(shape[1:])

    def read(start: int, stop: int) -> Any:
        return tensor[start // columns : stop // columns].reshape(-1)

    return read


def _factors(folder: Path) -> dict[str, tuple[Any, Any]]:
    """Return s B and A in 64 bit by the weight that they change; s is that of PEFT's LoraLayer.update_layer."""
    from safetensors.torch import load_file

    config = json.loads((folder / CONFIG).read_text())
    scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
    tensors = load_file(folder / WEIGHTS)
    found = {}
    for key, b in tensors.items():
        module, part, _ = key.rpartition(".lora_B.weight")
        if part:
            a = tensors[f"{module}.lora_A.weight"]
            found[f"{module.removeprefix('base_model.model.')}.weight"] = (scale * b.double(), a.double())
    return found


class _Proof:
    def __init__(self, written: Weights, threads: ThreadPoolExecutor, advance: Callable[[int], None]) -> None:
        self._written, self._threads, self._advance = written, threads, advance
        self._total = sum(math.prod(tensor.shape) for tensor in written.tensors.values())
        self._done = 0

    def run(self, name: str, shape: tuple[int, ...], unit: int, read: _Read, learned: tuple[Any, Any] | None) -> None:
        """Check one weight."""
        waiting: list[Future[int]] = []
        for start, stop in pieces(shape, unit):
            waiting.append(self._threads.submit(self._check_piece, name, read, learned, start, stop))
            if len(waiting) > 4 * cpus():
                self._count(waiting.pop(0).result())
        for future in waiting:
            self._count(future.result())

    def _check_piece(self, name: str, read: _Read, learned: tuple[Any, Any] | None, start: int, stop: int) -> int:
        import torch

        found = self._written.piece(self._written.tensors[name], start, stop)
        stored = read(start, stop)
        if learned is None:
            wrong = found != stored.half()
            if bool(wrong.any()):
                self._reject(name, start, wrong, stored)
            return stop - start
        b, a = learned
        columns = a.shape[1]
        rows = b[start // columns : stop // columns]
        exact = torch.addmm(stored.double().view(-1, columns), rows, a)
        # Where it is the nearest number of F16, which is nearly everywhere, there is nothing to measure.
        at = (found.view(-1, columns) != exact.half()).nonzero(as_tuple=True)
        if at[0].numel():
            sums, values = exact[at], found.view(-1, columns)[at].double()
            terms = (rows.abs()[at[0]] * a.abs().T[at[1]]).sum(dim=1) + stored.view(-1, columns)[at].double().abs()
            rounding = (a.shape[0] + 2) * _ROUNDING_32 * terms
            # Written as "not <=" to catch NaN, too.
            far = ~((values - sums).abs() <= _step(sums) / 2 + rounding)
            if bool(far.any()):
                wrong = torch.zeros(exact.shape, dtype=torch.bool)
                wrong[at[0][far], at[1][far]] = True
                self._reject(name, start, wrong.view(-1), exact.view(-1))
        return stop - start

    def _reject(self, name: str, start: int, wrong: Any, wanted: Any) -> None:
        first = int(wrong.nonzero()[0])
        found = self._written.piece(self._written.tensors[name], start + first, start + first + 1)
        raise RejectedFile(
            f"weight {start + first} of {name} is {float(found):.6g} in the merged model, and with the adapter it must "
            f"be {float(wanted[first]):.6g}"
        )

    def _count(self, weights: int) -> None:
        before, self._done = 100 * self._done // self._total, self._done + weights
        if (percent := 100 * self._done // self._total) != before:
            self._advance(percent)


def _step(values: Any) -> Any:
    """Return the distance of the numbers of F16 around each value."""
    import torch

    # frexp: a fraction of 0.5 to 1 and an exponent.
    exponents = (torch.frexp(values).exponent - 1).clamp(min=_SMALLEST_EXPONENT)
    return torch.exp2((exponents - _FRACTION_BITS).double())
