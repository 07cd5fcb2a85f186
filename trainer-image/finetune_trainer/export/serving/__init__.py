"""Instructions for serving the result: SERVE.md and Ollama's Modelfile."""
