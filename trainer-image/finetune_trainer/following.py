"""What a process does that trains with others and does not lead: the same steps, and nothing of what is done once."""

from dataclasses import dataclass
from pathlib import Path

from finetune_trainer import gpu, load_model, methods, prepared, training_rows
from finetune_trainer.context import Context
from finetune_trainer.gpu import GPU
from finetune_trainer.ladder import Shortage
from finetune_trainer.prepared import Prepared
from finetune_trainer.rung import Rung
from finetune_trainer.team import Team
from finetune_trainer.team_progress import Following
from finetune_trainer.team_rows import filled, own_plan, part


@dataclass(frozen=True)
class Start:
    """What the leader tells the others before they load the model."""

    rung: Rung
    # Folders: the model's files, and the adapter to go on from.
    weights: Path
    adapter: Path | None
    # The rows of each step, by their index.
    steps: list[list[int]]


@dataclass(frozen=True)
class Run:
    """What the leader tells the others before they train."""

    # The folder of a checkpoint.
    resume: Path | None
    # False: an earlier attempt has trained to the end.
    trains: bool


class Follower:
    """One attempt of a process that follows; it is ended from outside when the leader ends before its time."""

    def __init__(self, context: Context, description: Prepared, team: Team) -> None:
        self._context = context
        self._folder = context.layout.run(description.run_id)
        self._team = team
        self._loading = False
        self.rung: Rung | None = None
        # The model's files.
        self.weights: Path | None = None
        self.device: GPU | None = None
        # Of the bucket, which the leader alone writes.
        self.checkpoint_step: int | None = None

    def run(self) -> None:
        """Train with the others.

        Raises:
            StageError: see `errors`.
        """
        # The leader alone decides when it is time to stop.
        with self._context.stop.deferred():
            plan, team = self._context.plan, self._team
            self.device = gpu.find(plan.allow_cpu)
            start: Start = team.share()
            self.rung, self.weights = start.rung, start.weights
            scratch = self._context.scratch / f"process-{team.rank}"
            scratch.mkdir(parents=True, exist_ok=True)
            path = scratch / Path(prepared.TRAIN_ROWS).name
            self._context.store.get_file(f"{self._folder}/{prepared.TRAIN_ROWS}", path)
            rows, steps = filled(training_rows.read(path, plan.training.method), start.steps, plan, team)
            self._loading = True
            loaded = load_model.load(plan, start.weights, self.device, start.rung, start.adapter)
            load_model.for_training(loaded.model)
            progress = Following(team, self._context.stop, plan.training.seed)
            folder = scratch / "trainer"
            trainer = methods.build(own_plan(plan, team), loaded, rows, steps, progress, folder, start.rung)
            micro = start.rung.micro_batch_size
            methods.check_batches(plan, trainer, rows, part(steps[0], micro, team))
            run: Run = team.share()
            if run.trains:
                trainer.train(resume_from_checkpoint=str(run.resume) if run.resume else None)

    def shortage(self, error: BaseException) -> Shortage | None:
        """See Training."""
        return gpu.shortage(self.device, error) if self._loading else None
