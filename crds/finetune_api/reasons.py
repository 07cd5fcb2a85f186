"""Every reason of a condition, failure, event or warning. docs/reasons.md is generated from this."""

from dataclasses import dataclass

from finetune_api.spec import START_DEADLINE_SECONDS
from finetune_api.training_spec import HANG_TIMEOUT_SECONDS


@dataclass(frozen=True)
class Reason:
    """What a reason means and what to do about it, in Markdown."""

    meaning: str
    remedy: str


_NOTHING = "Nothing."

WAITING: dict[str, Reason] = {
    "SecretNotFound": Reason(
        "A Secret that the job names, or a key in it, does not exist in the job's namespace.",
        "Create it: the job then continues by itself. If its name is wrong, correct it, see [above](#reasons).",
    ),
    "ConfigMapNotFound": Reason(
        "A ConfigMap that the job names, or a key in it, does not exist in the job's namespace.",
        "Create it: the job then continues by itself. If its name is wrong, correct it, see [above](#reasons).",
    ),
    "VolumeNotMountable": Reason(
        "A PersistentVolumeClaim does not exist, or is not bound.", "Create it, or check its events."
    ),
    "ImagePullFailed": Reason(
        "The node cannot pull the trainer image.",
        "Correct `trainer.image` of the chart or `spec.compute.imagePullSecrets`: the job then starts with it.",
    ),
    "Unschedulable": Reason(
        "No node has a free GPU, or enough CPU, memory or disk (`status.scratch` has the disk that the job needs).",
        "Wait, or edit `spec.compute`: lower `resources` (the message has what the pod requests, defaults included), "
        "or set `tolerations` for tainted GPU nodes. Raise `spec.startDeadlineSeconds` if pods wait longer for a GPU.",
    ),
    "QuotaExceeded": Reason(
        "The namespace's ResourceQuota is used up.", "Ask your administrator, or wait for other pods or Jobs to end."
    ),
    "Queued": Reason(
        "The Job waits in its Kueue queue; the message quotes Kueue.", "Wait, or read [kueue.md](kueue.md)."
    ),
    "PodRefused": Reason(
        "A policy, a LimitRange, an admission webhook or a node refused the Job or its pod; the message quotes it.",
        "Change what the message names, usually in `spec.compute`; for a LimitRange, `spec.compute.resources`.",
    ),
    "WaitingForPreviousRun": Reason(
        "Pods of a deleted job of the same name, or of an earlier attempt, are still terminating.",
        "Wait a few minutes, or delete them.",
    ),
    "RetryBackoff": Reason(
        "An attempt failed; the message has the time when the next one starts.",
        "Wait, or fix the failure that the message quotes.",
    ),
    "PlanNewer": Reason(
        "The operator was rolled back to a version older than the one that accepted the job. Running pods continue; "
        "nothing new is started.",
        "Upgrade the operator again: the job then continues.",
    ),
    "TrainerOlder": Reason(
        "`spec.compute` was changed to several GPUs, and the job's trainer image, of an earlier version, supports only "
        "one. Training is not started.",
        "Set `spec.compute.nodes` and `spec.compute.accelerator.extendedResource.count` back to 1: the job then "
        "continues. Or delete this FineTuneJob and create it again.",
    ),
    "Suspended": Reason("`spec.suspend` is true: nothing is started.", "Set it to false: the job then continues."),
}

FAILURES: dict[str, Reason] = {
    "StartDeadlineExceeded": Reason(
        f"A pod did not start within `spec.startDeadlineSeconds` (default {START_DEADLINE_SECONDS}), and the cause is "
        "unknown. If the cause is known, the failure has its reason instead.",
        "Check the pod's events, or raise the field.",
    ),
    "DeadlineExceeded": Reason(
        "All stages and attempts together took longer than `spec.activeDeadlineSeconds`.",
        "Raise it, or leave it out, and reopen the job with `spec.retryGeneration`.",
    ),
    "InvalidSettings": Reason(
        "The job's settings are invalid, or do not work together.",
        "Change them as the message says, see [above](#reasons).",
    ),
    "InvalidDataset": Reason(
        "A row or a file is invalid; the message names source and line.",
        "Correct it, or set `dataset.checks.invalidRows: Drop`.",
    ),
    "ModelUnusable": Reason(
        "The model was not found, or cannot be trained or converted.", "Check repository, revision and path."
    ),
    "StorageUnavailable": Reason(
        "The S3 server or the hub did not answer for 30 minutes, or for two if DNS does not know its name.",
        "Check endpoint, DNS, proxy and CA bundle.",
    ),
    "InternalError": Reason(
        "The trainer checked its own work and found it wrong, such as a library that changed the training rows. The "
        "job is not at fault. It is not tried again.",
        "Use another version of the trainer image (`trainer.image` of the chart), create the job again, and report the "
        "message. A job that had not trained takes the new image once its `spec.retryGeneration` is raised.",
    ),
    "ResultLost": Reason(
        "A stage succeeded, but its pod was gone or its termination message was unreadable.",
        "Nothing: a small pod without a GPU reads the result from the bucket.",
    ),
    "ResultMissing": Reason(
        "A stage succeeded, but its result is not in the bucket.",
        "Nothing: the stage runs again. Find out what deletes objects in the bucket.",
    ),
    "Preempted": Reason("The pod was terminated after it saved a checkpoint.", "Nothing: the next attempt resumes."),
    "AccessDenied": Reason("Keys or token were refused.", "Correct the Secret that the message names."),
    "OutOfGPUMemory": Reason(
        "Training does not fit the GPU, even with the lowest memory settings.",
        "Lower `maxSequenceLength`, or use a smaller model or a larger GPU.",
    ),
    "GPUUnusable": Reason(
        "The node's driver is too old, or its GPU is broken.",
        "Have the node repaired; the next attempt avoids it.",
    ),
    "Hung": Reason(
        "Training made no step and no other progress for `spec.training.hangTimeoutSeconds` (default "
        f"{HANG_TIMEOUT_SECONDS}) and was ended; the log has the stack of each thread. Counted; the next attempt "
        "continues from the last checkpoint.",
        "If single steps take longer than that, raise the field. Otherwise check node and network.",
    ),
    "TrainingDiverged": Reason(
        "The loss became no number, or stayed far above where it began for ten steps: the learning rate is too high. "
        "Training ended early. If a step before that is better than the base on the hold-out rows, it is kept, and "
        "this is only a warning; otherwise the job fails, and is not tried again.",
        "Create the job again with the `training.learningRate` that the message names, a tenth of the present one.",
    ),
    "OOMKilled": Reason(
        "The container needed more memory (not GPU memory) than its limit. The second time in a row the job fails, "
        "unless `spec.compute` was changed in between.",
        "Raise `spec.compute.resources.<stage>.limits.memory`.",
    ),
    "Evicted": Reason(
        "The pod wrote more to disk than its limit. The second time in a row the job fails, unless `spec.compute` "
        "was changed in between.",
        "Raise `spec.compute.scratch.size`.",
    ),
    "Disrupted": Reason("The pod was evicted or preempted, or lost its node. Not counted.", "Nothing: it resumes."),
    "PodLost": Reason("The pod ended without an exit code.", "Check the events of pod and node. The stage is retried."),
    "JobUndecided": Reason(
        "A pod failed and its Kubernetes Job was not marked Failed, which may happen after a restart of the API "
        "server.",
        "Nothing: after a minute the Job is created again, which is not counted.",
    ),
    "ComputeChanged": Reason(
        "`spec.compute` was changed. A pod that cannot start is created again with it. A running pod continues, and "
        "the next attempt of the stage uses it. Not counted.",
        _NOTHING,
    ),
    "SpecChanged": Reason(
        "The job, or what the chart says about all jobs, was corrected before a container had started: it is accepted "
        "again. Not counted.",
        _NOTHING,
    ),
    "JobDeleted": Reason(
        "Somebody deleted the Kubernetes Job of a stage. Not counted.", "Nothing: a new one continues."
    ),
    "InvalidSpec": Reason(
        "The CRD is newer than the operator, and the job has a field or value that the operator does not know.",
        "Upgrade the chart, or leave the field out.",
    ),
    "EndpointNotAllowed": Reason(
        "The job names a server that the administrator's `policy.endpoints` does not list; the message has field and "
        "host.",
        "Use another server, or ask the administrator to add this one.",
    ),
    "GateMissed": Reason(
        "The result is not better on the hold-out rows by more than chance, and `evaluation.gate` requires it.",
        "Follow the message. The adapter is in the bucket.",
    ),
    "PlanLost": Reason(
        "The job's plan was deleted or replaced while it ran.",
        "Delete this FineTuneJob and create it again.",
    ),
    "Crashed": Reason(
        "Any other exit code. Counted against `spec.retries.maximum`.", "Read the attempt's log in the bucket."
    ),
}

COURSE: dict[str, Reason] = {
    "Accepted": Reason("The job is accepted; its plan is fixed once the first container starts.", _NOTHING),
    "EditedTooLate": Reason(
        "The spec was edited in the moment in which the first container started: the job runs as it was accepted "
        "(condition SpecApplied).",
        "To use the edit, run `kubectl replace --force -f FILE`, see [above](#reasons).",
    ),
    "Preparing": Reason("The stage prepare is running or about to start.", _NOTHING),
    "Training": Reason("The stage train is running or about to start.", _NOTHING),
    "Exporting": Reason("The stage export is running or about to start.", _NOTHING),
    "StageStarted": Reason("The Kubernetes Job of a stage was created.", _NOTHING),
    "StageSucceeded": Reason("A stage succeeded.", _NOTHING),
    "StageRetrying": Reason("An attempt failed and will be retried.", "See the failure that the message quotes."),
    "StageFailed": Reason("A stage failed for good.", "See `status.failure`."),
    "Resumed": Reason("The job is no longer suspended.", _NOTHING),
    "Reopened": Reason(
        "`spec.retryGeneration` was raised: the job continues with the stage that failed. If it had not trained and "
        "was corrected, it starts again.",
        _NOTHING,
    ),
    "Succeeded": Reason("The model is in the bucket.", _NOTHING),
    "Failed": Reason("The job failed.", "See `status.failure`."),
    "ReusedArtifacts": Reason(
        "An identical run exists, and its files are the result.",
        "Nothing; `output.reuse: Never` trains anyway.",
    ),
    "Better": Reason("The result is better on the hold-out rows by more than chance.", _NOTHING),
    "Worse": Reason(
        "The result is worse on the hold-out rows by more than chance.",
        "Lower `training.learningRate`, train fewer steps, or check the examples.",
    ),
    "NotEnoughEvidence": Reason(
        "The hold-out rows cannot tell whether the result is better.",
        "Add examples, train longer, or hold out more rows (`dataset.holdout`).",
    ),
}

WARNINGS: dict[str, Reason] = {
    "InvalidRows": Reason("Invalid rows were left out.", "Correct them; the message has the first."),
    "TruncatedRows": Reason(
        "Rows are longer than `model.maxSequenceLength`; `dataset.checks.truncation` decides what is done with them.",
        "Shorten them, or raise the limit.",
    ),
    "TooFewExamples": Reason(
        "There are fewer examples than `dataset.checks.minimumExamples`.", "Add examples, or lower it."
    ),
    "SmallDataset": Reason("There are few examples.", "Add some: results vary less."),
    "NoHoldout": Reason(
        "No row can be held out (only from `prepare --check`).", "Add examples, or lower `dataset.holdout.percent`."
    ),
    "HoldoutInTraining": Reason(
        "Rows of `dataset.holdout.sources` are also in `dataset.sources`; they are not trained on.", _NOTHING
    ),
    "ExactDuplicates": Reason("Rows are the same as an earlier one.", "Remove them; see `dataset.checks.duplicates`."),
    "NearDuplicates": Reason(
        "Rows are nearly the same as an earlier one.", "Remove them; see `dataset.checks.duplicates`."
    ),
    "PersonalData": Reason("There seems to be personal data, which the model may repeat to anyone.", "Remove it."),
    "Refusals": Reason("Answers begin with a refusal.", "Remove them unless that is intended."),
    "CutOffAnswers": Reason("Long answers stop in the middle of a sentence.", "Complete them."),
    "DifferentAnswers": Reason("One prompt has several answers.", "Keep the best."),
    "AnswerRepeatsPrompt": Reason("Answers only repeat the prompt.", "Correct them."),
    "RepeatedAnswer": Reason("Very many prompts have the same answer.", "Vary it, or remove some rows."),
    "AnswersLeftOut": Reason(
        "Earlier answers of conversations are not learned: the chat template renders them differently from a last "
        "answer.",
        "Add a row that ends with each of them.",
    ),
    "DatasetPartlySeen": Reason(
        "Training ends before it has seen every row.", "Raise `training.maxSteps`, or set `training.epochs`."
    ),
    "ManyEpochs": Reason(
        "Each row is seen many times, which invites memorizing.", "Lower `training.maxSteps` or `epochs`."
    ),
    "WarmupTooLong": Reason(
        "The learning rate rises for most of the training.", "Lower the warm-up as the message says."
    ),
    "EncodingConverted": Reason(
        "A file is not UTF-8; it was read in the encoding that the message names.",
        "Check a few rows.",
    ),
    "FencesRemoved": Reason("A file has Markdown fences, which were removed.", _NOTHING),
    "TextComposed": Reason("Decomposed letters (NFD) were composed (NFC).", _NOTHING),
    "MoreWarnings": Reason("There are more warnings than fit into the status.", "Read `report.json`."),
    "FileRejected": Reason(
        "A file failed its proof and was withheld; `status.artifacts[].rejected` says why. The others are published.",
        "What the message says; `report.json` has what was measured.",
    ),
    "StoppedEarly": Reason(
        "Training ended before its last step, because the hold-out loss no longer fell.",
        "Nothing, or raise `training.earlyStoppingPatience`.",
    ),
    "Overfitting": Reason(
        "The hold-out loss rose again before the end.",
        "Train fewer steps, or add examples; `training.keep: Best` keeps the best step.",
    ),
    "Forgetting": Reason(
        "On general questions, the model moved far away from the base.",
        "Lower `training.learningRate`, train fewer steps, or mix general examples in.",
    ),
    "AnswersEmpty": Reason("Answers of the tuned model are empty.", "Look for very short outputs in the dataset."),
    "AnswersLoop": Reason(
        "Answers repeat themselves.", "Lower `training.learningRate`, or look for repetition in the dataset."
    ),
    "AnswersWrongLanguage": Reason(
        "Answers are in another language than the question.", "Add examples in the language of your users."
    ),
    "AnswersNeverStop": Reason(
        "Answers are cut off at `evaluation.maxNewTokens`.", "Raise it, or make the outputs in the dataset shorter."
    ),
    "AnswersRepeatQuestion": Reason(
        "Answers say the question again.", "Look at the outputs in the dataset, or train more steps."
    ),
    "AnswersCopied": Reason("Answers are copied from the training data.", "Train fewer steps, or add examples."),
    "TrainerWarning": Reason("A warning of the trainer without a reason of its own.", "Read it."),
}

GROUPS: tuple[tuple[str, dict[str, Reason]], ...] = (
    ("Why a job waits", WAITING),
    ("Why an attempt or a job failed", FAILURES),
    ("The course of a job", COURSE),
    ("Warnings about data and result", WARNINGS),
)
REASONS: dict[str, Reason] = {name: reason for _, group in GROUPS for name, reason in group.items()}
