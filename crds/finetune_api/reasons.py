"""Every reason of a condition, a failure, an event or a warning. docs/reasons.md is made from this."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """What a reason means, and what to do about it. In Markdown."""

    meaning: str
    remedy: str


_NOTHING = "Nothing."

WAITING: dict[str, Reason] = {
    "SecretNotFound": Reason(
        "A Secret that the job names, or a key in it, is not in the job's namespace.",
        "Create it: the job goes on by itself.",
    ),
    "ConfigMapNotFound": Reason(
        "A ConfigMap that the job names, or a key in it, is not in the job's namespace.",
        "Create it: the job goes on by itself.",
    ),
    "VolumeNotMountable": Reason(
        "A PersistentVolumeClaim does not exist, or is not bound.", "Create it, or look at its events."
    ),
    "ImagePullFailed": Reason(
        "The node cannot pull the trainer image.",
        "Check `trainer.image` of the chart, and `spec.compute.imagePullSecrets`.",
    ),
    "Unschedulable": Reason(
        "No node has a free GPU, or enough CPU, memory or disk (`status.scratch` says how much).",
        "Wait, or edit `spec.compute`: lower `resources`, or set `tolerations` for tainted GPU nodes. Raise "
        "`spec.startDeadlineSeconds` if pods wait for a GPU for longer.",
    ),
    "QuotaExceeded": Reason(
        "The namespace's ResourceQuota is used up.", "Ask your administrator, or wait for other pods or Jobs to end."
    ),
    "Queued": Reason(
        "The Job waits in its queue of Kueue; the message has Kueue's words.", "Wait, or read [kueue.md](kueue.md)."
    ),
    "PodRefused": Reason(
        "A policy, an admission webhook or a node refused the Job or its pod; the message quotes it.",
        "Change what it names, mostly in `spec.compute`.",
    ),
    "WaitingForPreviousRun": Reason(
        "Pods of a deleted job of the same name, or of an earlier attempt, are still ending.",
        "Wait some minutes, or delete them.",
    ),
    "RetryBackoff": Reason(
        "An attempt failed; the next one starts at the time told.", "Wait, or read the failure it quotes."
    ),
    "PlanNewer": Reason(
        "The operator was rolled back, and a newer one had accepted the job. What runs, runs on; nothing more is "
        "started.",
        "Upgrade the operator again: the job goes on.",
    ),
    "TrainerOlder": Reason(
        "`spec.compute` was edited to several GPUs after a version of the operator had accepted the job whose trainer "
        "image knows of one only. Training is not started.",
        "Set `spec.compute.nodes` and `spec.compute.accelerator.extendedResource.count` back to 1: the job goes on. Or "
        "create it anew.",
    ),
    "Suspended": Reason("`spec.suspend` is true: nothing is started.", "Set it to false: the job goes on there."),
}

FAILURES: dict[str, Reason] = {
    "StartDeadlineExceeded": Reason(
        "A pod did not start within `spec.startDeadlineSeconds` (default 1800), and nothing says why. Where a cause is "
        "known, the failure has the reason of that.",
        "Look at the pod's events, or raise the field.",
    ),
    "DeadlineExceeded": Reason(
        "All stages and attempts together took longer than `spec.activeDeadlineSeconds`.",
        "Raise it, or leave it out; `spec.retryGeneration` then opens the job again.",
    ),
    "InvalidSettings": Reason("The job's own settings cannot work together.", "Change them as told, under a new name."),
    "InvalidDataset": Reason(
        "A row or a file is wrong; the message has source and line.",
        "Correct it, or set `dataset.checks.invalidRows: Drop`.",
    ),
    "ModelUnusable": Reason(
        "The model was not found, or cannot be trained or converted.", "Check repository, revision and path."
    ),
    "StorageUnavailable": Reason(
        "The S3 server or the hub did not answer, and trying again did not help.",
        "Check endpoint, DNS, proxy and CA bundle.",
    ),
    "InternalError": Reason(
        "The trainer checked its own work and found it wrong, such as a library that changed the training rows. The "
        "job is not at fault. It is not tried again.",
        "Use another version of the trainer image (`trainer.image` of the chart), create the job again, and report the "
        "message.",
    ),
    "ResultLost": Reason(
        "The pod of a stage was gone, or said nothing readable, after the stage succeeded.",
        "Nothing: a small pod without a GPU reads the result from the bucket.",
    ),
    "ResultMissing": Reason(
        "A stage succeeded, and its result is not in the bucket.",
        "Nothing: the stage runs again. Look for what deletes objects there.",
    ),
    "Preempted": Reason("The pod had to go; a checkpoint is saved.", "Nothing: the next attempt resumes."),
    "AccessDenied": Reason("Keys or token were refused.", "Correct the Secret that is named."),
    "OutOfGPUMemory": Reason(
        "It does not fit the GPU, even in the smallest form.",
        "Lower `maxSequenceLength`, or use a smaller model or a larger GPU.",
    ),
    "GPUUnusable": Reason(
        "The node's driver is too old, or its GPU broken.",
        "Have the node repaired; the next attempt may land on another.",
    ),
    "Hung": Reason(
        "Training made no step and no other progress for `spec.training.hangTimeoutSeconds` (default 1800) and was "
        "ended; the log has where each of its threads stood. Counted; the next attempt goes on from the last "
        "checkpoint.",
        "If single steps take longer than that, raise the field. Otherwise look for a broken node or network.",
    ),
    "OOMKilled": Reason(
        "The container needed more memory (not GPU memory) than its limit. A second time in a row ends the job, unless "
        "`spec.compute` was edited in between.",
        "Raise `spec.compute.resources.<stage>.limits.memory`.",
    ),
    "Evicted": Reason(
        "The pod wrote more to disk than its limit. A second time in a row ends the job, unless `spec.compute` was "
        "edited in between.",
        "Raise `spec.compute.scratch.size`.",
    ),
    "Disrupted": Reason(
        "The pod was evicted or preempted, or lost its node. Not counted.", "Nothing: it starts again where it was."
    ),
    "PodLost": Reason("The pod ended without an exit code.", "Look at the events of pod and node; it starts again."),
    "JobUndecided": Reason(
        "A pod has failed and its Kubernetes Job does not say so, as it may happen after a restart of the API server.",
        "Nothing: after a minute the Job is made anew, which is not counted.",
    ),
    "ComputeChanged": Reason(
        "`spec.compute` was edited. A pod that cannot start is made anew with it; one that runs is left alone, and the "
        "stage's next attempt has it. Not counted.",
        _NOTHING,
    ),
    "JobDeleted": Reason(
        "Somebody deleted the Kubernetes Job of a stage. Not counted.", "Nothing: a new one continues."
    ),
    "InvalidSpec": Reason(
        "The CRD is newer than the operator and allowed what it does not know.",
        "Upgrade the chart, or leave the field out.",
    ),
    "EndpointNotAllowed": Reason(
        "The job leads to a server that the administrator's `policy.endpoints` does not list; the message names field "
        "and host.",
        "Use another server, or have this one added.",
    ),
    "GateMissed": Reason(
        "The result is not better on the hold-out rows by more than chance, and `evaluation.gate` asks for that.",
        "Follow the message; the adapter is in the bucket.",
    ),
    "PlanLost": Reason("The job's plan was deleted or replaced while it ran.", "Delete the job and create it again."),
    "Crashed": Reason(
        "Another exit code; counted against `spec.retries.maximum`.", "Read the attempt's log in the bucket."
    ),
}

COURSE: dict[str, Reason] = {
    "Accepted": Reason("The job is taken on; its plan is fixed.", _NOTHING),
    "Preparing": Reason("The stage prepare runs or is about to.", _NOTHING),
    "Training": Reason("The stage train runs or is about to.", _NOTHING),
    "Exporting": Reason("The stage export runs or is about to.", _NOTHING),
    "StageStarted": Reason("The Kubernetes Job of a stage is there.", _NOTHING),
    "StageSucceeded": Reason("A stage is done.", _NOTHING),
    "StageRetrying": Reason("An attempt failed, and there will be another.", "Read the failure it quotes."),
    "StageFailed": Reason("A stage failed for good.", "See `status.failure`."),
    "Resumed": Reason("The job is suspended no more.", _NOTHING),
    "Reopened": Reason("`spec.retryGeneration` was raised: the job goes on at the stage that failed.", _NOTHING),
    "Succeeded": Reason("The model is in the bucket.", _NOTHING),
    "Failed": Reason("The job failed.", "See `status.failure`."),
    "ReusedArtifacts": Reason(
        "An identical run was there, and its files are the result.",
        "Nothing; `output.reuse: Never` trains anyway.",
    ),
    "Better": Reason("The result is better on the hold-out rows by more than chance.", _NOTHING),
    "Worse": Reason(
        "The result is worse on the hold-out rows by more than chance.",
        "Lower `training.learningRate`, train fewer steps, or check the examples.",
    ),
    "NotEnoughEvidence": Reason(
        "The hold-out rows cannot tell whether the result is better.",
        "Add examples, train longer, or keep more rows aside (`dataset.holdout`).",
    ),
}

WARNINGS: dict[str, Reason] = {
    "InvalidRows": Reason("Rows that are no examples were left out.", "Correct them; the message has the first."),
    "TruncatedRows": Reason(
        "Rows are longer than `model.maxSequenceLength`; `dataset.checks.truncation` says what is done with them.",
        "Shorten them, or raise that.",
    ),
    "TooFewExamples": Reason(
        "There are fewer examples than `dataset.checks.minimumExamples`.", "Add examples, or lower it."
    ),
    "SmallDataset": Reason("There are few examples.", "Add some: the result is steadier."),
    "NoHoldout": Reason(
        "No row is left to keep aside (of `prepare --check`).", "Add examples, or lower `dataset.holdout.percent`."
    ),
    "HoldoutInTraining": Reason("Rows of `dataset.holdout.sources` are in the sources too; not trained on.", _NOTHING),
    "ExactDuplicates": Reason(
        "Rows say the same as an earlier one.", "Take them out; see `dataset.checks.duplicates`."
    ),
    "NearDuplicates": Reason(
        "Rows say nearly the same as an earlier one.", "Take them out; see `dataset.checks.duplicates`."
    ),
    "PersonalData": Reason("There seem to be personal data, which the model may repeat to anyone.", "Take them out."),
    "Refusals": Reason("Answers begin with a refusal.", "Take them out unless that is meant."),
    "CutOffAnswers": Reason("Long answers stop in the middle of a sentence.", "Complete them."),
    "DifferentAnswers": Reason("One prompt has several answers.", "Keep the best."),
    "AnswerRepeatsPrompt": Reason("Answers only repeat the prompt.", "Correct them."),
    "RepeatedAnswer": Reason("Very many prompts have one and the same answer.", "Vary it, or take some out."),
    "AnswersLeftOut": Reason(
        "Earlier answers of conversations are not learned: the chat template shows them otherwise than the model gives "
        "them.",
        "End rows of their own with them.",
    ),
    "DatasetPartlySeen": Reason(
        "Training ends before it has seen every row.", "Raise `training.maxSteps`, or set `training.epochs`."
    ),
    "ManyEpochs": Reason(
        "Each row is seen many times, which invites memorizing.", "Lower `training.maxSteps` or `epochs`."
    ),
    "WarmupTooLong": Reason("The learning rate rises for most of the training.", "Lower the warm-up as told."),
    "EncodingConverted": Reason("A file was not in UTF-8; it was read in the encoding told.", "Check a few rows."),
    "FencesRemoved": Reason("A file had Markdown fences, which were left out.", _NOTHING),
    "TextComposed": Reason("Decomposed letters (NFD) were composed (NFC).", _NOTHING),
    "MoreWarnings": Reason("There are more than the status has room for.", "Read `report.json`."),
    "Overfitting": Reason(
        "The hold-out loss rose again before the end.",
        "Train fewer steps, or add examples; `training.keep: Best` keeps the best step.",
    ),
    "Forgetting": Reason(
        "The model has moved far from the base on general questions.",
        "Lower `training.learningRate`, train fewer steps, or mix general examples in.",
    ),
    "AnswersEmpty": Reason("Answers of the tuned model are empty.", "Look for very short outputs in the dataset."),
    "AnswersLoop": Reason(
        "Answers go round in circles.", "Lower `training.learningRate`, or look for repetition in the dataset."
    ),
    "AnswersWrongLanguage": Reason(
        "Answers are in another language than the question.", "Add examples in the language of your users."
    ),
    "AnswersNeverStop": Reason(
        "Answers are cut off at `evaluation.maxNewTokens`.", "Raise it, or make the outputs in the dataset shorter."
    ),
    "AnswersCopied": Reason("Answers are copied from the training data.", "Train fewer steps, or add examples."),
    "TrainerWarning": Reason("A warning of the trainer that has no reason of its own.", "Read it."),
}

GROUPS: tuple[tuple[str, dict[str, Reason]], ...] = (
    ("Why a job waits", WAITING),
    ("Why an attempt or a job failed", FAILURES),
    ("The course of a job", COURSE),
    ("Warnings about data and result", WARNINGS),
)
REASONS: dict[str, Reason] = {name: reason for _, group in GROUPS for name, reason in group.items()}
