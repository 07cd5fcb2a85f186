"""The pods that train one adapter together: how they meet, and which of them caused a failure."""
