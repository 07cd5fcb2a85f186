"""A process that trains with others and does not lead: the same steps, and nothing that is done only once."""

from pathlib import Path

from finetune_trainer import methods
from finetune_trainer.errors import UnavailableError
from finetune_trainer.gpu import device as gpu_device
from finetune_trainer.gpu.device import GPU
from finetune_trainer.gpu.memory_fallback import Shortage
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.model import earlier_adapter
from finetune_trainer.model import load as load_model
from finetune_trainer.run_folder import prepared
from finetune_trainer.run_folder.prepared import Prepared
from finetune_trainer.runtime.context import Context
from finetune_trainer.sources.model import fetch_weights
from finetune_trainer.train.checkpoints import Checkpoints, Marker, checkpoint_folder
from finetune_trainer.train.messages import Files, Run, Start
from finetune_trainer.train.ranks.ranks import Ranks
from finetune_trainer.train.ranks.shard import filled, part
from finetune_trainer.train.ranks.step_sync import FollowerSync


class Follower:
    """One attempt of a process that follows; it is killed from outside if the leader ends early."""

    def __init__(self, context: Context, description: Prepared, weights: Path | None, ranks: Ranks) -> None:
        """`weights`: the model's files if they were fetched before."""
        self._context = context
        self._prepared = description
        self._folder = context.layout.run(description.run_id)
        self._ranks = ranks
        self._loading = False
        self.memory_settings: MemorySettings | None = None
        # The model's files.
        self.weights = weights
        self.device: GPU | None = None
        # Only the leader writes the bucket.
        self.checkpoint_step: int | None = None

    def run(self) -> None:
        """Train with the others.

        Raises:
            StageError: see `errors`.
            StopRequested: SIGTERM came while it fetched files.
        """
        files = self._fetch() if self._ranks.fetches else None
        # Only the leader decides when to stop.
        with self._context.stop.deferred():
            plan, ranks = self._context.plan, self._ranks
            self.device = gpu_device.find(plan.allow_cpu)
            start: Start = ranks.broadcast()
            self.memory_settings = start.memory_settings
            scratch = self._context.scratch / f"process-{ranks.rank}"
            scratch.mkdir(parents=True, exist_ok=True)
            path = scratch / Path(prepared.TRAIN_ROWS).name
            self._context.store.get_file(f"{self._folder}/{prepared.TRAIN_ROWS}", path)
            rows, steps = filled(methods.of(plan.training.method).read(path), start.steps, plan, ranks)
            files = ranks.broadcast_in_pod(files)
            assert files is not None
            self.weights = files.weights
            self._loading = True
            loaded = load_model.load(plan, files.weights, self.device, start.memory_settings, files.adapter)
            load_model.for_training(loaded.model)
            progress = FollowerSync(ranks, self._context.stop, plan.training.seed)
            folder = scratch / "trainer"
            trainer = methods.build(plan, loaded, rows, steps, progress, folder, start.memory_settings, ranks.size)
            micro = start.memory_settings.micro_batch_size
            methods.check_batches(plan, trainer, rows, part(steps[0], micro, ranks))
            run: Run = ranks.broadcast()
            if run.trains:
                resume = self._checkpoint(run.resume) if run.resume else None
                trainer.train(resume_from_checkpoint=str(resume) if resume else None)

    def _fetch(self) -> Files:
        """Fetch what the leader fetches for its own pod, at the same time."""
        weights = self.weights or fetch_weights(self._context, self._prepared.model)
        return Files(weights, earlier_adapter.fetch(self._context, self._prepared.adapter))

    def _checkpoint(self, marker: Marker) -> Path:
        folder = checkpoint_folder(self._context.scratch / "trainer", marker.step)
        if self._ranks.fetches:
            store, prefix = self._context.store, self._context.layout.checkpoints
            kept = Checkpoints(store, prefix, marker.run_id, marker.order_sha256)
            if not kept.download(marker, folder):
                raise UnavailableError(f"only one pod could read the checkpoint of step {marker.step}; try again")
        return self._ranks.broadcast_in_pod(folder)

    def shortage(self, error: BaseException) -> Shortage | None:
        """See Leader."""
        return gpu_device.shortage(self.device, error) if self._loading else None
