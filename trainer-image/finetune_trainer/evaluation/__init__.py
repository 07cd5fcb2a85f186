"""How a result is judged: losses, answers, forgetting, verdict."""
