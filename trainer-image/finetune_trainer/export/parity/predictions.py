"""What a GGUF predicts for the supervised tokens of the reference rows, as they are (teacher forcing)."""

from collections.abc import Iterator, Sequence
from typing import Any

from finetune_trainer.evaluation.reference import TOP, ReferenceRow
from finetune_trainer.export.llama_cpp.api import LlamaModel
from finetune_trainer.export.parity.figures import Tokens, divergence

# In 64 bit they take 131 MB for a vocabulary of 128,256, and as much again while they are summed.
_POSITIONS_AT_ONCE = 128


def true_tokens(model: LlamaModel, row: ReferenceRow) -> list[float]:
    """Return the log-probability of each true token, in nats."""
    import numpy as np

    found: list[float] = []
    for part, logits in _logits(model, row):
        truth = _truth(row)[part]
        found += (np.take_along_axis(logits, truth[:, None], axis=1)[:, 0] - _log_sum(logits)).tolist()
    return found


def compare(
    model: LlamaModel, row: ReferenceRow, own_base: Sequence[float] | None = None
) -> tuple[Tokens, ReferenceRow]:
    """Return how the file predicts a row beside the model that is described in it, and the row as the file predicts it.

    `own_base`: of `true_tokens` for the base in the file's own weights; None: it predicts as the model's base.
    """
    import numpy as np

    ids, log_top, rest = np.array(row.top_ids), np.array(row.top), np.array(row.rest)
    own = list(row.base if own_base is None else own_base)
    described = row.model_copy(update={"base": own, "tuned": [], "top_ids": [], "top": [], "rest": []})
    kl, agrees = [], []
    for part, logits in _logits(model, row):
        total = _log_sum(logits)
        truth = _truth(row)[part]
        described.tuned.extend((np.take_along_axis(logits, truth[:, None], axis=1)[:, 0] - total).tolist())
        best = _most_likely(logits)
        described.top_ids.extend(best.tolist())
        described.top.extend((np.take_along_axis(logits, best, axis=1) - total[:, None]).tolist())
        described.rest.extend((_log_sum(_without(logits, best)) - total).tolist())
        agrees.append(best[:, 0] == ids[part, 0])
        top = np.take_along_axis(logits, ids[part], axis=1) - total[:, None]
        kl.append(divergence(log_top[part], rest[part], top, _log_sum(_without(logits, ids[part])) - total))
    tokens = Tokens(
        base=np.array(row.base),
        own_base=np.array(own),
        model=np.array(row.tuned),
        file=np.array(described.tuned),
        kl=np.concatenate(kl),
        agrees=np.concatenate(agrees),
    )
    return tokens, described


def _truth(row: ReferenceRow) -> Any:
    import numpy as np

    return np.array([row.input_ids[i] for i in row.positions])


def _logits(model: LlamaModel, row: ReferenceRow) -> Iterator[tuple[slice, Any]]:
    """Yield the logits that predict the supervised tokens, in 64 bit, a few positions at a time."""
    import numpy as np

    done = 0
    for logits in model.logits(row.input_ids, [i - 1 for i in row.positions]):
        for first in range(0, len(logits), _POSITIONS_AT_ONCE):
            part = logits[first : first + _POSITIONS_AT_ONCE].astype(np.float64)
            yield slice(done, done + len(part)), part
            done += len(part)


def _most_likely(logits: Any) -> Any:
    """Return the ids of the most likely tokens, the first one first."""
    import numpy as np

    count = min(TOP, logits.shape[1] - 1)
    best = np.argpartition(logits, -count, axis=1)[:, -count:]
    order = np.argsort(-np.take_along_axis(logits, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)


def _without(logits: Any, ids: Any) -> Any:
    import numpy as np

    others = logits.copy()
    np.put_along_axis(others, ids, -np.inf, axis=1)
    return others


def _log_sum(logits: Any) -> Any:
    """Return ln sum exp of each row."""
    import numpy as np

    peak = logits.max(axis=1, keepdims=True)
    return np.log(np.exp(logits - peak).sum(axis=1)) + peak[:, 0]
