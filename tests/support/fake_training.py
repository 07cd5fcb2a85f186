"""Stands in for `finetune_trainer.train.worker`: a GPU whose memory is measured in rungs.

FAKE_TRAINING is a JSON object: `fits`, the rung that has room ([micro-batch, checkpointing]; null: none has),
`steps` per process before memory runs out, or `end`, how the process ends instead. `others`: the same of the processes
that do not lead; left out, they follow to the end.
"""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path

from finetune_api.result import StageResult
from finetune_trainer.gpu.memory_fallback import Shortage
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.progress.pipe import PipeReporter
from finetune_trainer.runtime.sigterm import StopFlag
from finetune_trainer.train import worker
from finetune_trainer.train.messages import Order, Outcome

FIRST = MemorySettings(8, "None")
WEIGHTS = Path("model-files")


def main(path: Path) -> int:
    order = Order.model_validate_json(path.read_bytes())
    told = json.loads(os.environ["FAKE_TRAINING"])
    if os.environ.get("RANK", "0") != "0":
        told = told.get("others", {})
    reporter = PipeReporter(order.progress)
    reporter.report("Training", step=1, total_steps=2)
    memory_settings = order.memory_settings or FIRST
    with Path(os.environ["FAKE_TRAINING_LOG"]).open("a") as file:
        file.write(
            json.dumps(
                {
                    "pid": os.getpid(),
                    "rung": [memory_settings.micro_batch_size, memory_settings.gradient_checkpointing],
                    "weights": str(order.weights) if order.weights else None,
                }
            )
            + "\n"
        )
    print("said by the training process", flush=True)
    if end := told.get("end"):
        return finish(end, order)
    if not told:
        outcome = Outcome()
    elif [memory_settings.micro_batch_size, memory_settings.gradient_checkpointing] == told["fits"]:
        outcome = Outcome(result=StageResult(stage="train", exit_code=0, run_id="a" * 64))
    else:
        outcome = Outcome(shortage=Shortage("Fake GPU", 1000, 1200), memory_settings=memory_settings, weights=WEIGHTS)
    order.outcome.write_text(outcome.model_dump_json(by_alias=True))
    return 0


def finish(end: str, order: Order) -> int:
    if end == "wait":
        time.sleep(60)
    elif end == "break when stopped":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        signal.pause()
    elif end == "wait and save":
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.pause()
        result = StageResult(stage="train", exit_code=75, message="saved", checkpoint_step=7)
        order.outcome.write_text(Outcome(result=result).model_dump_json(by_alias=True))
    elif end == "crash":
        result = StageResult(stage="train", exit_code=1, message="unexpected RuntimeError in train")
        order.outcome.write_text(Outcome(result=result).model_dump_json(by_alias=True))
    elif end == "hang":
        worker._attempt = hang
        return worker.main(sys.argv[1:])
    elif end.startswith("SIG"):
        os.kill(os.getpid(), signal.Signals[end])
    return 3


def hang(order: Order, stop: StopFlag) -> Outcome:
    """Never come back from native code, nor let another thread of Python run meanwhile."""
    while True:
        ctypes.PyDLL(None).sleep(60)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
