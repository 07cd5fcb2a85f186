"""Stands in for `finetune_trainer.train.worker`: a GPU that has room for certain memory settings.

FAKE_TRAINING is a JSON object: `fits`, the settings that fit ([micro-batch, checkpointing]; null: none), or `end`,
how the process ends instead. `others`: the same of the processes that do not lead; left out, they follow to the end.

It is run as a program and needs the standard library only, so that it starts in no time; what it leaves is in
FAKE_OUTCOMES, made by `outcomes`.
"""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def outcomes() -> dict[str, Any]:
    """Return what processes leave, by how they end."""
    from finetune_api.result import StageResult
    from finetune_trainer.gpu.memory_fallback import Shortage
    from finetune_trainer.gpu.memory_settings import MemorySettings
    from finetune_trainer.train.messages import Outcome

    made = {
        "trained": Outcome(result=StageResult(stage="train", exit_code=0, run_id="a" * 64)),
        "followed": Outcome(),
        # With the first settings, unless the order names another.
        "short": Outcome(
            shortage=Shortage("Fake GPU", 1000, 1200),
            memory_settings=MemorySettings(8, "None"),
            weights=Path("model-files"),
        ),
        "saved": Outcome(result=StageResult(stage="train", exit_code=75, message="saved", checkpoint_step=7)),
        "crashed": Outcome(result=StageResult(stage="train", exit_code=1, message="unexpected RuntimeError in train")),
    }
    return {name: outcome.model_dump(mode="json", by_alias=True) for name, outcome in made.items()}


def main(path: Path) -> int:
    order = json.loads(path.read_bytes())
    script = json.loads(os.environ["FAKE_TRAINING"])
    if os.environ.get("RANK", "0") != "0":
        script = script.get("others", {})
    if script.get("end") in ("break when stopped", "wait and save"):
        # Before anybody can see that it has started: it waits for the signal, which may come at any time.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    os.write(order["progress"], b'{"activity": "Training", "step": 1, "total_steps": 2}\n')
    memory_settings = order["memorySettings"] or json.loads(os.environ["FAKE_OUTCOMES"])["short"]["memorySettings"]
    shown = list(memory_settings.values())
    with Path(os.environ["FAKE_TRAINING_LOG"]).open("a") as file:
        file.write(json.dumps({"pid": os.getpid(), "settings": shown, "weights": order["weights"]}) + "\n")
    print("said by the training process", flush=True)
    if end := script.get("end"):
        return finish(end, order)
    if not script:
        leave(order, "followed")
    elif shown == script["fits"]:
        leave(order, "trained")
    else:
        leave(order, "short", memorySettings=memory_settings)
    return 0


def leave(order: dict[str, Any], how: str, **members: Any) -> None:
    outcome = json.loads(os.environ["FAKE_OUTCOMES"])[how] | members
    Path(order["outcome"]).write_text(json.dumps(outcome))


def finish(end: str, order: dict[str, Any]) -> int:
    if end == "wait":
        time.sleep(600)
    elif end == "break when stopped":
        signal.sigwait([signal.SIGTERM])
        return 1
    elif end == "wait and save":
        signal.sigwait([signal.SIGTERM])
        leave(order, "saved")
    elif end == "save":
        leave(order, "saved")
    elif end == "crash":
        leave(order, "crashed")
    elif end == "hang":
        from finetune_trainer.train import worker

        worker._attempt = hang
        return worker.main(sys.argv[1:])
    elif end.startswith("SIG"):
        os.kill(os.getpid(), signal.Signals[end])
    return 3


def hang(*_: Any) -> Any:
    """Never come back from native code, nor let another thread of Python run meanwhile; a file says when it begins.

    Another file says when the stacks are printed, which interrupts the sleep.
    """
    folder = Path(os.environ["FAKE_TRAINING_LOG"]).parent
    # A handler of Python would not get to run.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    (folder / "hangs").touch()
    while True:
        ctypes.PyDLL(None).sleep(600)
        (folder / "dumped").touch()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
