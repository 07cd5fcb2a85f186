"""The second stage, on GPUs: it trains, saves checkpoints and judges the result."""
