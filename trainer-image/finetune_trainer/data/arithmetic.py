"""What the numbers of a job mean for its user."""

_MANY_EPOCHS = 4
_SMALL = 100


def epochs_planned(rows: int, batch_size: int, total_steps: int) -> float:
    """Return how often each training row is seen."""
    return total_steps * batch_size / rows


def warnings(rows: int, examples: int, batch_size: int, total_steps: int, composed: int) -> list[str]:
    """Return at most a handful of sentences, each begun by its CamelCase reason.

    `rows` are trained, `examples` include the held-out ones, `composed` had decomposed text.
    """
    seen = total_steps * batch_size
    epochs = epochs_planned(rows, batch_size, total_steps)
    found = []
    if seen < rows:
        found.append(
            f"DatasetPartlySeen: {seen:,} of {rows:,} rows are used; raise training.maxSteps or set training.epochs"
        )
    if epochs > _MANY_EPOCHS:
        found.append(
            f"ManyEpochs: each row is seen {epochs:.1f} times, which invites memorizing; "
            "lower training.maxSteps or epochs, or add examples"
        )
    if examples < _SMALL:
        found.append(f"SmallDataset: {examples} examples are few; from {_SMALL} on the result is steadier")
    if composed:
        found.append(f"TextComposed: {composed:,} rows had decomposed letters (NFD), which were composed (NFC)")
    return found
