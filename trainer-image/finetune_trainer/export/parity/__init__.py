"""Whether an exported file predicts as the trained model does."""
