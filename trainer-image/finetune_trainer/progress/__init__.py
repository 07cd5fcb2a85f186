"""How far a stage is: shown, sent and watched."""
