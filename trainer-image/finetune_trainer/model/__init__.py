"""The model: loaded, checked, adapted and merged."""
