"""Looking at a model in the middle of its training changes nothing."""

import random

import numpy as np
import torch

from finetune_trainer.train.preserved_state import undisturbed


def losses(*, look: bool) -> list[float]:
    """Train a little model with dropout, and look at it after each step."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    for _ in range(4):
        loss = (model(torch.rand(3, 4)) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(float(loss.detach()))
        if look:
            with undisturbed(model), torch.no_grad():
                model.eval()
                model(torch.rand(3, 4))
    return found


def test_training_continues_with_the_same_losses() -> None:
    assert losses(look=True) == losses(look=False)


def test_a_module_that_was_not_training_is_not_afterwards() -> None:
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout())
    model[0].eval()
    with undisturbed(model):
        model.train()
    assert [module.training for module in model] == [False, True]


def test_the_other_random_numbers_continue_too() -> None:
    def drawn(*, look: bool) -> tuple[float, float]:
        random.seed(1)
        np.random.seed(1)
        if look:
            with undisturbed(torch.nn.Linear(1, 1)):
                random.random()
                np.random.rand()
        return random.random(), float(np.random.rand())

    assert drawn(look=True) == drawn(look=False)
